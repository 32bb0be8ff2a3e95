//! YAML as Patroni prints it (sorted keys, no indentation of lists, single
//! quotes where YAML 1.1 would read something else, lines folded at 200).

use serde_json::Value;

use crate::scalar::{Style, escaped, style};

/// Columns after which a line is folded at the next single space.
const WIDTH: usize = 200;

/// Writes `value` in block style, ending with a line break.
#[must_use]
pub fn block(value: &Value) -> String {
    let mut out = Writer::default();
    match value {
        Value::Object(map) if !map.is_empty() => out.mapping(map, 0),
        Value::Array(list) if !list.is_empty() => out.sequence(list, 0),
        other => {
            out.inline(other, 0, false);
            if !matches!(other, Value::Object(_) | Value::Array(_)) {
                out.text.push_str("\n...");
            }
        }
    }
    out.text.push('\n');
    out.text.trim_start_matches('\n').to_owned()
}

/// Writes `value` in flow style on one line.
#[must_use]
pub fn flow(value: &Value) -> String {
    let mut out = Writer::default();
    out.inline(value, 0, true);
    out.text
}

#[derive(Default)]
struct Writer {
    text: String,
    column: usize,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    fn line(&mut self, indent: usize) {
        self.text.push('\n');
        self.text.push_str(&" ".repeat(indent));
        self.column = indent;
    }

    fn mapping(&mut self, map: &serde_json::Map<String, Value>, indent: usize) {
        for (index, (key, value)) in map.iter().enumerate() {
            // The first key of a mapping in a list stands behind the dash.
            if index > 0 || !self.text.ends_with("- ") {
                self.line(indent);
            }
            self.key(key);
            match value {
                Value::Object(inner) if !inner.is_empty() => self.mapping(inner, indent + 2),
                Value::Array(list) if !list.is_empty() => self.sequence(list, indent),
                other => {
                    self.put(" ");
                    self.inline(other, indent + 2, false);
                }
            }
        }
    }

    fn sequence(&mut self, list: &[Value], indent: usize) {
        for (index, value) in list.iter().enumerate() {
            if index > 0 || !self.text.ends_with("- ") {
                self.line(indent);
            }
            self.put("- ");
            match value {
                Value::Object(inner) if !inner.is_empty() => self.mapping(inner, indent + 2),
                Value::Array(inner) if !inner.is_empty() => self.sequence(inner, indent + 2),
                other => self.inline(other, indent + 2, false),
            }
        }
    }

    fn key(&mut self, key: &str) {
        let quoted = match style(key, false) {
            Style::Plain if !key.is_empty() => key.to_owned(),
            Style::Plain | Style::Single if !key.contains('\n') => format!("'{}'", key.replace('\'', "''")),
            _ => format!("\"{}\"", escaped(key)),
        };
        self.put(&quoted);
        self.put(":");
    }

    fn inline(&mut self, value: &Value, indent: usize, flow: bool) {
        match value {
            Value::Null => self.put("null"),
            Value::Bool(true) => self.put("true"),
            Value::Bool(false) => self.put("false"),
            Value::Number(number) => self.put(&shown_number(number)),
            Value::String(text) => self.scalar(text, indent, flow),
            Value::Array(list) => {
                self.put("[");
                for (index, item) in list.iter().enumerate() {
                    self.separate(index, indent);
                    self.inline(item, indent + 2, true);
                }
                self.put("]");
            }
            Value::Object(map) => {
                self.put("{");
                for (index, (key, item)) in map.iter().enumerate() {
                    self.separate(index, indent);
                    self.key(key);
                    self.put(" ");
                    self.inline(item, indent + 2, true);
                }
                self.put("}");
            }
        }
    }

    fn separate(&mut self, index: usize, indent: usize) {
        if index == 0 {
            return;
        }
        self.put(",");
        if self.column > WIDTH {
            self.line(indent + 2);
        } else {
            self.put(" ");
        }
    }

    fn scalar(&mut self, text: &str, indent: usize, flow: bool) {
        match style(text, flow) {
            Style::Plain => self.folded(text, indent),
            Style::Single => {
                self.put("'");
                self.folded(&text.replace('\'', "''"), indent);
                self.put("'");
            }
            Style::Double => {
                self.put("\"");
                self.put(&escaped(text));
                self.put("\"");
            }
        }
    }

    /// Single spaces past the width become line breaks, line breaks become empty lines.
    fn folded(&mut self, text: &str, indent: usize) {
        let characters: Vec<char> = text.chars().collect();
        let at = |index: usize| characters.get(index).copied();
        for (index, character) in characters.iter().enumerate() {
            let alone =
                index > 0 && at(index - 1) != Some(' ') && at(index + 1).is_some_and(|next| next != ' ');
            match character {
                ' ' if alone && self.column > WIDTH => self.line(indent),
                '\n' => {
                    if index == 0 || at(index - 1) != Some('\n') {
                        self.text.push('\n');
                    }
                    self.text.push('\n');
                    if at(index + 1) != Some('\n') {
                        self.put(&" ".repeat(indent));
                        self.column = indent;
                    }
                }
                _ => self.put(character.encode_utf8(&mut [0; 4])),
            }
        }
    }
}

fn shown_number(number: &serde_json::Number) -> String {
    let text = number.to_string();
    match text.split_once('e') {
        // YAML 1.1 wants a point in the mantissa and a sign in the exponent.
        Some((mantissa, exponent)) => {
            let point = if mantissa.contains('.') { "" } else { ".0" };
            let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
            format!("{mantissa}{point}e{sign}{exponent}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// P174: the expected text is what `yaml.safe_dump` of Patroni printed for the same document.
    #[test]
    fn a_configuration_looks_as_patroni_prints_it() {
        let value = json!({
            "ttl": 30, "empty": {}, "none": null, "list": [], "slots": {"a": {"type": "physical"}},
            "postgresql": {
                "parameters": {"max_connections": 50, "log_line_prefix": "%m [%p]: ", "hot_standby": "on",
                    "x.y": "1.10", "fillfactor": 0.9, "archive": "cp '%p' /b/%f", "multi": "a\nb", "tab": "a\tb"},
                "pg_hba": ["local all all trust", "host all all ::1/128 md5", "# note"],
                "use_pg_rewind": true
            },
            "nested": [[1, 2], [{"a": 1, "b": [2]}]]
        });
        let expected = "\
empty: {}
list: []
nested:
- - 1
  - 2
- - a: 1
    b:
    - 2
none: null
postgresql:
  parameters:
    archive: cp '%p' /b/%f
    fillfactor: 0.9
    hot_standby: 'on'
    log_line_prefix: '%m [%p]: '
    max_connections: 50
    multi: 'a

      b'
    tab: \"a\\tb\"
    x.y: '1.10'
  pg_hba:
  - local all all trust
  - host all all ::1/128 md5
  - '# note'
  use_pg_rewind: true
slots:
  a:
    type: physical
ttl: 30
";
        assert_eq!(block(&value), expected);
    }

    #[test]
    fn tags_on_one_line() {
        let tags = json!({"datacenter": "dc1", "clonefrom": true, "n": "no", "u": "a, b"});
        assert_eq!(flow(&tags), "{clonefrom: true, datacenter: dc1, n: 'no', u: 'a, b'}");
    }
}
