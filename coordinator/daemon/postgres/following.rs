//! Whom the configuration files make the server follow: read back for a server that
//! was found running. It reads the lines that `conf` writes, and no others.

use std::collections::BTreeMap;

use super::Paths;

/// The recovery settings in the server's configuration file, unquoted; empty if it cannot be read.
pub fn settings(paths: &Paths) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(paths.conf()).unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once('=')?;
    let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
    let plain = value.replace("''", "'").replace("\\\\", "\\");
    Some((name.trim().to_owned(), plain))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_setting_is_read_back_as_it_was_written() {
        let line = r"primary_conninfo = 'user=replicator password=''it\\''s'' host=127.0.0.1'";
        let (name, value) = parse(line).unwrap();
        assert_eq!(name, "primary_conninfo");
        assert_eq!(value, r"user=replicator password='it\'s' host=127.0.0.1");
        assert_eq!(parse("# recovery.conf"), None);
    }
}
