//! P106–P111: who may change something, over plain HTTP and over TLS.

use std::path::PathBuf;
use std::time::Duration;

use api::client::{Client, ClientSettings};
use api::server::Settings;
use api::tls::{ClientFiles, ServerFiles, VerifyServer};
use config::{Secret, VerifyClient};
use dcs::Seen;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::fixture::{Served, later, name, primary, settings, view};

const DEADLINE: Duration = Duration::from_secs(10);

fn guarded() -> Settings {
    Settings { authentication: Some(("admin".to_owned(), Secret::new("secret".to_owned()))), ..settings() }
}

fn sigterm(served: &Served, headers: &str) -> (u16, String, String) {
    served.call("POST", "/sigterm", headers, "{}")
}

/// P106.
#[test]
fn passwords_are_asked_for_in_patronis_words() {
    let served = Served::new(guarded(), primary(later()));
    for (headers, expected) in [
        ("", "no auth header received"),
        ("Authorization: Basic YWRtaW46d3Jvbmc=\r\n", "not authenticated"),
        ("Authorization: Bearer YWRtaW46c2VjcmV0\r\n", "not authenticated"),
        ("Authorization: Basic \r\n", "not authenticated"),
    ] {
        let (code, head, text) = sigterm(&served, headers);
        assert_eq!((code, text.as_str()), (401, expected), "{headers}");
        assert!(head.to_lowercase().contains("www-authenticate: basic realm=\"patroni\""), "{head}");
    }
    assert_eq!(sigterm(&served, "Authorization: Basic YWRtaW46c2VjcmV0\r\n").0, 202);
    assert_eq!(served.call("POST", "/mpp", "", "{\"a\": 1}").0, 401, "unlike Patroni, /mpp is protected");
}

/// P111.
#[test]
fn reading_needs_no_password() {
    let allowlist = vec!["10.255.255.1".to_owned()];
    let served = Served::new(Settings { allowlist, ..guarded() }, primary(later()));
    for path in
        ["/primary", "/patroni", "/cluster", "/config", "/history", "/metrics", "/why", "/openapi.json"]
    {
        assert_eq!(served.get(path).0, 200, "{path}");
    }
}

fn from_loopback(allowlist: &[&str], allowlist_include_members: bool) -> (u16, String) {
    let allowlist = allowlist.iter().map(|entry| (*entry).to_owned()).collect();
    let served =
        Served::new(Settings { allowlist, allowlist_include_members, ..guarded() }, primary(later()));
    let (code, _, text) = sigterm(&served, "Authorization: Basic YWRtaW46c2VjcmV0\r\n");
    (code, text)
}

/// P108: addresses, networks, host names; the address is checked before the password.
#[test]
fn the_allowlist_decides_by_address() {
    let denied = (403, "Access is denied".to_owned());
    assert_eq!(from_loopback(&["10.0.0.0/8"], false), denied);
    assert_eq!(from_loopback(&["10.0.0.0/8", "127.0.0.1"], false).0, 202);
    assert_eq!(from_loopback(&["127.0.0.0/8"], false).0, 202);
    assert_eq!(from_loopback(&["localhost"], false).0, 202);
    assert_eq!(from_loopback(&["no-such-host.invalid"], false), denied, "an unresolvable list admits nobody");
    let served =
        Served::new(Settings { allowlist: vec!["10.0.0.0/8".to_owned()], ..guarded() }, primary(later()));
    assert_eq!(sigterm(&served, "").2, "Access is denied");
}

/// P109: members' addresses are allowed too, from the moment they are members.
#[test]
fn members_may_be_allowed() {
    assert_eq!(from_loopback(&[], true).0, 202, "node1 and node2 are on 127.0.0.1");
    let served = Served::new(Settings { allowlist_include_members: true, ..settings() }, primary(later()));
    let mut elsewhere = view();
    for member in elsewhere.members.values_mut() {
        member.api_url = Some("http://10.0.0.9:8008/patroni".to_owned());
    }
    served.seen.send_replace(Seen { view: Some(elsewhere.clone().into()), ..Seen::default() });
    assert_eq!(sigterm(&served, "").0, 403);
    let node2 = elsewhere.members.get_mut(&name("node2")).unwrap();
    node2.api_url = Some("http://localhost:8008/patroni".to_owned());
    served.seen.send_replace(Seen { view: Some(elsewhere.into()), ..Seen::default() });
    assert_eq!(sigterm(&served, "").0, 202, "a member named by host");
}

/// An authority, and certificates that it signed, as files.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Writes certificate and key for `host` into one file.
    fn sign(&self, file: &str, host: &str) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = self.path(file);
        std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
        path
    }

    fn server(&self, verify_client: VerifyClient) -> Settings {
        let certfile = self.sign("server.pem", "127.0.0.1");
        let tls = ServerFiles { certfile, keyfile: None, cafile: Some(self.path("ca.pem")), verify_client };
        Settings { tls: Some(tls), ..settings() }
    }

    fn client(&self, verify: VerifyServer, certfile: Option<PathBuf>) -> Client {
        let certfile = certfile.map(|path| (path, None));
        let tls = ClientFiles { cacert: Some(self.path("ca.pem")), certfile, verify };
        Client::new(&ClientSettings { tls, ..ClientSettings::default() }).unwrap()
    }
}

/// The code of an answer, or nothing if there was none.
async fn code(client: &Client, served: &Served, method: &str, path: &str) -> Option<u16> {
    let body = json!({});
    let body = (method != "GET").then_some(&body);
    let url = format!("https://{}{path}", served.address);
    client.ask(method, &url, body, DEADLINE).await.ok().map(|answer| answer.code)
}

/// P107.
#[tokio::test]
async fn client_certificates_are_asked_for_as_configured() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let without = ours.client(VerifyServer::Name, None);
    let with = ours.client(VerifyServer::Name, Some(ours.sign("client.pem", "client")));
    let foreign = ours.client(VerifyServer::Name, Some(theirs.sign("client.pem", "client")));
    let served = Served::new(ours.server(VerifyClient::None), primary(later()));
    assert_eq!(code(&without, &served, "POST", "/sigterm").await, Some(202));
    let served = Served::new(ours.server(VerifyClient::Optional), primary(later()));
    assert_eq!(code(&without, &served, "GET", "/primary").await, Some(200));
    assert_eq!(code(&without, &served, "POST", "/sigterm").await, Some(403));
    assert_eq!(code(&with, &served, "POST", "/sigterm").await, Some(202));
    assert_eq!(code(&foreign, &served, "GET", "/primary").await, None, "a foreign certificate is refused");
    let served = Served::new(ours.server(VerifyClient::Required), primary(later()));
    assert_eq!(code(&without, &served, "GET", "/primary").await, None);
    assert_eq!(code(&with, &served, "GET", "/primary").await, Some(200));
    assert_eq!(code(&with, &served, "POST", "/sigterm").await, Some(202));
}

/// Peers verify chains, the command line names too, and nobody is fooled by a foreign authority.
#[tokio::test]
async fn clients_verify_as_much_as_they_are_told() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut renamed = ours.server(VerifyClient::None);
    renamed.tls.as_mut().unwrap().certfile = ours.sign("other.pem", "other.example");
    let served = Served::new(renamed, primary(later()));
    for (authority, verify, expected) in [
        (&ours, VerifyServer::Name, None),
        (&ours, VerifyServer::Chain, Some(200)),
        (&ours, VerifyServer::Nothing, Some(200)),
        (&theirs, VerifyServer::Name, None),
        (&theirs, VerifyServer::Chain, None),
        (&theirs, VerifyServer::Nothing, Some(200)),
    ] {
        let client = authority.client(verify, None);
        assert_eq!(code(&client, &served, "GET", "/primary").await, expected, "{verify:?}");
    }
}

/// A self-signed certificate that is authority, server and client at once, as `openssl req -x509` makes it, is
/// believed by whoever trusts exactly it, within its time and for its name.
#[tokio::test]
async fn a_self_signed_certificate_serves_for_everything() {
    let ours = Authority::new();
    let own = |file: &str, host: &str, until: i32| {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let path = ours.path(file);
        std::fs::write(&path, params.self_signed(&key).unwrap().pem() + &key.serialize_pem()).unwrap();
        path
    };
    let served = |own: &PathBuf| {
        let verify_client = VerifyClient::Required;
        let tls =
            ServerFiles { certfile: own.clone(), keyfile: None, cafile: Some(own.clone()), verify_client };
        Served::new(Settings { tls: Some(tls), ..settings() }, primary(later()))
    };
    let client = |trusted: &PathBuf, shown: &PathBuf, verify| {
        let certfile = Some((shown.clone(), None));
        let tls = ClientFiles { cacert: Some(trusted.clone()), certfile, verify };
        Client::new(&ClientSettings { tls, ..ClientSettings::default() }).unwrap()
    };
    let (good, other) = (own("good.pem", "127.0.0.1", 2090), own("other.pem", "127.0.0.1", 2090));
    let (renamed, expired) = (own("renamed.pem", "db.example", 2090), own("expired.pem", "127.0.0.1", 2020));
    for (server, trusted, shown, verify, expected) in [
        (&good, &good, &good, VerifyServer::Name, Some(200)),
        (&good, &good, &good, VerifyServer::Chain, Some(200)),
        (&good, &other, &good, VerifyServer::Name, None),
        (&good, &other, &good, VerifyServer::Chain, None),
        (&good, &good, &other, VerifyServer::Name, None),
        (&renamed, &renamed, &renamed, VerifyServer::Name, None),
        (&renamed, &renamed, &renamed, VerifyServer::Chain, Some(200)),
        (&expired, &expired, &expired, VerifyServer::Chain, None),
        (&expired, &expired, &expired, VerifyServer::Nothing, None),
    ] {
        let (client, served) = (client(trusted, shown, verify), served(server));
        let found = code(&client, &served, "GET", "/primary").await;
        assert_eq!(found, expected, "{server:?} trusting {trusted:?}, showing {shown:?}, {verify:?}");
    }
}

/// P084: some headers are sent over TLS only.
#[tokio::test]
async fn https_headers_are_sent_over_tls() {
    let authority = Authority::new();
    let https_extra_headers = [("Strict-Transport-Security".to_owned(), "max-age=1".to_owned())].into();
    let settings = Settings { https_extra_headers, ..authority.server(VerifyClient::None) };
    let served = Served::new(settings, primary(later()));
    let client = authority.client(VerifyServer::Name, None);
    let url = format!("https://{}/primary", served.address);
    let answer = client.ask("GET", &url, None, DEADLINE).await.unwrap();
    assert_eq!(answer.headers["strict-transport-security"], "max-age=1");
}

/// P110: new certificates are served from the next connection on; a broken file changes nothing.
#[tokio::test]
async fn certificates_reload_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let settings = old.server(VerifyClient::None);
    let served = Served::new(settings.clone(), primary(later()));
    let (knows_old, knows_new) = (old.client(VerifyServer::Name, None), new.client(VerifyServer::Name, None));
    assert_eq!(code(&knows_old, &served, "GET", "/primary").await, Some(200));
    assert_eq!(code(&knows_new, &served, "GET", "/primary").await, None);
    let certfile = settings.tls.clone().unwrap().certfile;
    std::fs::copy(new.sign("server.pem", "127.0.0.1"), &certfile).unwrap();
    served.reload.reload(&settings).unwrap();
    assert_eq!(code(&knows_new, &served, "GET", "/primary").await, Some(200));
    assert_eq!(code(&knows_old, &served, "GET", "/primary").await, Some(200), "an open connection goes on");
    let fresh = old.client(VerifyServer::Name, None);
    assert_eq!(code(&fresh, &served, "GET", "/primary").await, None);
    std::fs::write(&certfile, "nonsense").unwrap();
    let error = served.reload.reload(&settings).unwrap_err().to_string();
    assert!(error.contains(certfile.to_str().unwrap()), "{error}");
    let fresh = new.client(VerifyServer::Name, None);
    assert_eq!(code(&fresh, &served, "GET", "/primary").await, Some(200));
}

/// P084: headers for TLS only, and P110: passwords and addresses reload as well.
#[tokio::test]
async fn passwords_and_addresses_reload_too() {
    let served = Served::new(settings(), primary(later()));
    assert_eq!(sigterm(&served, "").0, 202);
    let moved = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Settings { listen: moved.to_string(), ..guarded() };
    served.reload.reload(&settings).unwrap();
    let client = Client::new(&ClientSettings::default()).unwrap();
    let url = format!("http://{moved}/sigterm");
    let answer = client.ask("POST", &url, Some(&json!({})), DEADLINE).await.unwrap();
    assert_eq!((answer.code, answer.text()), (401, "no auth header received".to_owned()));
    let authentication = settings.authentication.clone();
    let client = Client::new(&ClientSettings { authentication, ..ClientSettings::default() }).unwrap();
    assert_eq!(client.ask("POST", &url, Some(&json!({})), DEADLINE).await.unwrap().code, 202);
}

/// Files that cannot be used are named, with what to do.
#[test]
fn unusable_files_are_named() {
    let authority = Authority::new();
    let good = authority.server(VerifyClient::None).tls.unwrap();
    let fails = |files: ServerFiles| api::tls::server(&files).err().unwrap().to_string();
    let missing = fails(ServerFiles { certfile: "/nonexistent/cert.pem".into(), ..good.clone() });
    assert!(missing.contains("/nonexistent/cert.pem"), "{missing}");
    let encrypted = authority.path("encrypted.pem");
    std::fs::write(
        &encrypted,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    let text = fails(ServerFiles { keyfile: Some(encrypted), ..good.clone() });
    assert!(text.contains("encrypted"), "{text}");
    let text = fails(ServerFiles { cafile: None, verify_client: VerifyClient::Optional, ..good });
    assert!(text.contains("restapi.cafile"), "{text}");
}
