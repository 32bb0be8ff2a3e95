//! The keys of a node's own file (Patroni's `patroni.yml`).

use super::{Key, Reach};
use crate::kind::{ANY_INTEGER, COUNT, Kind};

const fn key(path: &'static str, kind: Kind, default: &'static str, says: &'static str) -> Key {
    Key::new(Reach::Local, path, kind, default, says)
}

const NO_THREADS: &str = "matriarch has no thread pool";
const OWN_TRANSPORT: &str = "the embedded store takes these times from min_timeout";
const LEVELS: &[&str] = &["DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"];

pub(super) const KEYS: &[Key] = &[
    key("name", Kind::Text, "", "The name of this node, unique in its cluster."),
    key("scope", Kind::Text, "", "The name of the cluster."),
    key("namespace", Kind::Text, "service", "The path above the cluster's keys in the store."),
    key("thread_pool_size", Kind::Integer(5, i64::MAX), "5", "Threads for requests to other members.")
        .never(NO_THREADS),
    key("thread_stack_size", Kind::Bytes(65_536), "512kB", "Stack of each such thread.").never(NO_THREADS),
    // How this node logs.
    key("log.type", Kind::OneOf(&["plain", "json"]), "plain", "The format of log lines."),
    key("log.level", Kind::OneOf(LEVELS), "INFO", "The least severe level that is logged."),
    key(
        "log.traceback_level",
        Kind::OneOf(&["DEBUG", "ERROR"]),
        "ERROR",
        "From which level on stack traces are shown.",
    )
    .never("matriarch's errors carry their causes instead of stack traces"),
    key("log.format", Kind::Format, "%(asctime)s %(levelname)s: %(message)s", "What a line holds."),
    key("log.dateformat", Kind::Text, "", "How the time is written.").later(),
    key("log.static_fields", Kind::Texts, "", "Fields added to every json line.").later(),
    key("log.max_queue_size", COUNT, "1000", "Lines kept while the log cannot be written.")
        .never("matriarch writes its log without a queue"),
    key("log.dir", Kind::Path, "", "The directory of the log file; without it the log goes to stderr.")
        .later(),
    key("log.mode", Kind::Permissions, "0644", "Permissions of the log file.").later(),
    key("log.file_num", COUNT, "4", "How many rotated log files are kept.").later(),
    key("log.file_size", Kind::Bytes(0), "25000000", "At which size the log file is rotated.").later(),
    key("log.loggers", Kind::Texts, "", "Levels for single parts of the program.").later(),
    key("log.deduplicate_heartbeat_logs", Kind::Bool, "off", "Log an unchanged heartbeat only once.")
        .never("matriarch logs a heartbeat only when it changes"),
    // The REST interface.
    key("restapi.listen", Kind::Address, "", "Where the REST interface listens."),
    key("restapi.connect_address", Kind::Address, "restapi.listen", "How others reach the REST interface."),
    key("restapi.authentication.username", Kind::Text, "", "The user that unsafe requests must give."),
    key("restapi.authentication.password", Kind::Secret, "", "The password that unsafe requests must give."),
    key("restapi.certfile", Kind::Path, "", "The certificate (PEM); with it the interface speaks HTTPS."),
    key("restapi.keyfile", Kind::Path, "", "The key of the certificate (PEM), if it is not in certfile."),
    key("restapi.keyfile_password", Kind::Secret, "", "The password of the key."),
    key("restapi.cafile", Kind::Path, "", "The authority that signs clients' certificates."),
    key("restapi.ciphers", Kind::Text, "", "OpenSSL's list of permitted ciphers.")
        .never("matriarch offers only the modern ciphers of TLS 1.2 and 1.3"),
    key(
        "restapi.verify_client",
        Kind::OneOf(&["none", "optional", "required"]),
        "none",
        "Which requests need a client certificate.",
    ),
    key("restapi.allowlist", Kind::Names, "", "Addresses and networks that may make unsafe requests."),
    key(
        "restapi.allowlist_include_members",
        Kind::Bool,
        "off",
        "Let the cluster's members make unsafe requests.",
    ),
    key("restapi.http_extra_headers", Kind::Texts, "", "Headers added to every answer."),
    key("restapi.https_extra_headers", Kind::Texts, "", "Headers added to every answer over HTTPS."),
    key("restapi.request_queue_size", Kind::Integer(0, 4096), "5", "Connections the kernel keeps waiting.")
        .never("matriarch lets the kernel keep as many as it allows"),
    key("restapi.thread_pool_size", Kind::Integer(5, i64::MAX), "5", "Threads that answer requests.")
        .never(NO_THREADS),
    key(
        "restapi.server_tokens",
        Kind::OneOf(&["minimal", "productonly", "original"]),
        "original",
        "What the Server header tells.",
    ),
    // The command line program.
    key("ctl.insecure", Kind::Bool, "off", "Accept any certificate of the REST interface."),
    key("ctl.cacert", Kind::Path, "", "The authority that signs the REST interfaces' certificates."),
    key("ctl.certfile", Kind::Path, "", "The client certificate for the REST interface."),
    key("ctl.keyfile", Kind::Path, "", "The key of that certificate."),
    key("ctl.keyfile_password", Kind::Secret, "", "The password of that key."),
    key("ctl.authentication.username", Kind::Text, "", "The user for unsafe requests."),
    key("ctl.authentication.password", Kind::Secret, "", "The password for unsafe requests."),
    // The store.
    key("etcd3.host", Kind::Text, "", "One etcd member, host:port."),
    key("etcd3.hosts", Kind::Names, "", "Several etcd members, each host:port."),
    key("etcd3.url", Kind::Text, "", "One etcd member as a URL."),
    key(
        "etcd3.proxy",
        Kind::Text,
        "",
        "A proxy in front of etcd as a URL; the advertised members are not used.",
    ),
    key("etcd3.srv", Kind::Text, "", "A domain whose SRV records name the etcd members."),
    key("etcd3.srv_suffix", Kind::Text, "", "A suffix of the SRV records' service name."),
    key("etcd3.discovery_srv", Kind::Text, "", "The same as srv."),
    key("etcd3.srv_domain", Kind::Text, "", "The same as srv."),
    key(
        "etcd3.use_proxies",
        Kind::Bool,
        "off",
        "Take hosts for proxies: the advertised members are not used.",
    ),
    key("etcd3.protocol", Kind::OneOf(&["http", "https"]), "http", "The scheme for host and hosts."),
    key("etcd3.port", Kind::Integer(1, 65_535), "2379", "The port where a host names none."),
    key("etcd3.username", Kind::Text, "", "The etcd user."),
    key("etcd3.password", Kind::Secret, "", "The etcd user's password."),
    key(
        "etcd3.cacert",
        Kind::Path,
        "",
        "The authority that signs etcd's certificates; with it the scheme is https.",
    ),
    key("etcd3.cert", Kind::Path, "", "The client certificate for etcd."),
    key("etcd3.key", Kind::Path, "", "The key of that certificate."),
    key("consul", Kind::Section, "", "The store of a cluster on Consul, which matriarch does not support."),
    key(
        "zookeeper",
        Kind::Section,
        "",
        "The store of a cluster on ZooKeeper, which matriarch does not support.",
    ),
    key(
        "exhibitor",
        Kind::Section,
        "",
        "The store of a cluster on Exhibitor, which matriarch does not support.",
    ),
    key(
        "kubernetes",
        Kind::Section,
        "",
        "The store of a cluster on Kubernetes, which matriarch does not support.",
    ),
    key("raft.self_addr", Kind::Address, "", "Where the other members of the embedded store reach this one."),
    key("raft.bind_addr", Kind::Address, "", "Where the embedded store listens, if not at self_addr."),
    key(
        "raft.partner_addrs",
        Kind::Names,
        "",
        "The embedded store's other members at its first start, each host:port.",
    ),
    key("raft.data_dir", Kind::Path, "", "A directory of its own for this member's log."),
    key("raft.password", Kind::Secret, "", "What the embedded store's members and clients share."),
    key("raft.cacert", Kind::Path, "", "The authority that signs the certificates of the store's members."),
    key("raft.cert", Kind::Path, "", "This member's certificate; with it the members speak TLS."),
    key("raft.key", Kind::Path, "", "The key of that certificate."),
    key(
        "raft.min_timeout",
        Kind::Seconds(0),
        "300ms",
        "The shortest time without a leader after which a member stands for election.",
    ),
    key(
        "raft.max_timeout",
        Kind::Seconds(0),
        "600ms",
        "The longest such time; twice min_timeout if only that is written.",
    ),
    key("raft.connection_timeout", Kind::Seconds(0), "", "How long a silent connection is kept.")
        .never(OWN_TRANSPORT),
    key("raft.append_entries_period", Kind::Seconds(0), "", "How often the leader is heard.")
        .never(OWN_TRANSPORT),
    key("raft.connection_retry_time", Kind::Seconds(0), "", "How long to wait before connecting again.")
        .never(OWN_TRANSPORT),
    key("raft.leader_fallback_timeout", Kind::Seconds(0), "", "How long a leader without quorum stays.")
        .never(OWN_TRANSPORT),
    key(
        "citus",
        Kind::Section,
        "",
        "The part of this cluster in a Citus cluster, which matriarch does not support.",
    ),
    // How a new cluster begins.
    key("bootstrap.dcs", Kind::Dynamic, "", "The dynamic configuration that a new cluster starts with."),
    key("bootstrap.method", Kind::Text, "initdb", "How the first member of a new cluster gets its data."),
    key("bootstrap.initdb", Kind::Options, "", "Options of initdb."),
    key("bootstrap.pg_hba", Kind::Lines, "", "Lines appended to pg_hba.conf of a new cluster."),
    key("bootstrap.post_bootstrap", Kind::Text, "", "A command run once after a new cluster was made."),
    key("bootstrap.post_init", Kind::Text, "", "The same as post_bootstrap."),
    key("bootstrap.users", Kind::Anything, "", "Roles that Patroni made before 4.0.")
        .never("Patroni 4.0 dropped it: create roles in bootstrap.post_bootstrap"),
    // Postgres on this machine.
    key("postgresql.listen", Kind::Listen, "", "Where Postgres listens."),
    key("postgresql.connect_address", Kind::Address, "postgresql.listen", "How others reach Postgres."),
    key(
        "postgresql.proxy_address",
        Kind::Address,
        "",
        "A pooler in front of Postgres, published for clients.",
    ),
    key("postgresql.data_dir", Kind::Path, "", "The data directory."),
    key("postgresql.config_dir", Kind::Path, "postgresql.data_dir", "Where postgresql.conf is."),
    key(
        "postgresql.config_base_name",
        Kind::Text,
        "postgresql",
        "The name of postgresql.conf without its ending.",
    ),
    key("postgresql.custom_conf", Kind::Path, "", "A file included instead of postgresql.base.conf."),
    key("postgresql.bin_dir", Kind::Path, "PATH", "Where Postgres's programs are."),
    key("postgresql.bin_name.pg_ctl", Kind::Text, "pg_ctl", "The name of pg_ctl."),
    key("postgresql.bin_name.initdb", Kind::Text, "initdb", "The name of initdb."),
    key("postgresql.bin_name.pg_controldata", Kind::Text, "pg_controldata", "The name of pg_controldata."),
    key("postgresql.bin_name.pg_basebackup", Kind::Text, "pg_basebackup", "The name of pg_basebackup."),
    key("postgresql.bin_name.postgres", Kind::Text, "postgres", "The name of postgres."),
    key("postgresql.bin_name.pg_isready", Kind::Text, "pg_isready", "The name of pg_isready."),
    key("postgresql.bin_name.pg_rewind", Kind::Text, "pg_rewind", "The name of pg_rewind."),
    key("postgresql.pgpass", Kind::Path, "~/pgpass", "The password file that matriarch writes."),
    key("postgresql.database", Kind::Text, "postgres", "The database that matriarch connects to."),
    key(
        "postgresql.authentication.*.username",
        Kind::Text,
        "postgres, replicator",
        "The role for superuser, replication or rewind.",
    ),
    key("postgresql.authentication.*.password", Kind::Secret, "", "The password of that role."),
    key("postgresql.authentication.*.sslmode", Kind::Text, "", "libpq's sslmode for it."),
    key("postgresql.authentication.*.sslcert", Kind::Path, "", "libpq's sslcert for it."),
    key("postgresql.authentication.*.sslkey", Kind::Path, "", "libpq's sslkey for it."),
    key("postgresql.authentication.*.sslpassword", Kind::Secret, "", "libpq's sslpassword for it."),
    key("postgresql.authentication.*.sslrootcert", Kind::Path, "", "libpq's sslrootcert for it."),
    key("postgresql.authentication.*.sslcrl", Kind::Path, "", "libpq's sslcrl for it."),
    key("postgresql.authentication.*.sslcrldir", Kind::Path, "", "libpq's sslcrldir for it."),
    key("postgresql.authentication.*.gssencmode", Kind::Text, "", "libpq's gssencmode for it."),
    key("postgresql.authentication.*.channel_binding", Kind::Text, "", "libpq's channel_binding for it."),
    key("postgresql.authentication.*.sslnegotiation", Kind::Text, "", "libpq's sslnegotiation for it."),
    key("postgresql.krbsrvname", Kind::Text, "", "libpq's krbsrvname for replication."),
    key("postgresql.use_unix_socket", Kind::Bool, "off", "Connect to the own Postgres through its socket."),
    key(
        "postgresql.use_unix_socket_repl",
        Kind::Bool,
        "off",
        "Replicate from the own Postgres through its socket.",
    ),
    // The watchdog.
    key(
        "watchdog.mode",
        Kind::BoolOr(&["automatic", "required", "require", "auto", "disable", "disabled"]),
        "automatic",
        "Whether the kernel's watchdog is used (automatic: if there is one), and whether leading needs it.",
    ),
    key("watchdog.device", Kind::Path, "/dev/watchdog", "The watchdog device."),
    key(
        "watchdog.safety_margin",
        Kind::Integer(-1, i64::MAX),
        "5",
        "Seconds before the lease's end at which the watchdog fires; -1 is half of ttl.",
    ),
    key(
        "watchdog.driver",
        Kind::OneOf(&["default", "testing"]),
        "default",
        "What the device is; testing is a pipe, for tests.",
    ),
    // Tags.
    key("tags.nofailover", Kind::Bool, "off", "Never make this node leader."),
    key("tags.failover_priority", ANY_INTEGER, "1", "Preference as leader among equals; 0 and below: never."),
    key("tags.noloadbalance", Kind::Bool, "off", "Answer 503 to load balancers that look for replicas."),
    key("tags.clonefrom", Kind::Bool, "off", "Prefer this node as a source of clones."),
    key("tags.nosync", Kind::Bool, "off", "Never make this node a synchronous standby."),
    key("tags.sync_priority", ANY_INTEGER, "1", "Preference as a synchronous standby; 0 and below: never."),
    key("tags.replicatefrom", Kind::Text, "", "The member to stream from instead of the leader."),
    key("tags.nostream", Kind::Bool, "off", "Replay archived WAL only, without streaming."),
    key("tags.*", Kind::Anything, "", "Any other tag is published as it is."),
];
