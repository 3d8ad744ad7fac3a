//! Answers as JSON, written straight into bytes.
//!
//! Owns the few rules that the wire has beyond plain JSON: empty lists are left out, doubles that JSON cannot hold
//! travel as the strings `NaN`, `Infinity` and `-Infinity`. It is separate from serde so that a page of a thousand runs
//! is one pass over the index's packed documents, without a tree in between. It cannot fail: it writes to memory, and
//! the caller bounds how much.

/// Append a JSON string.
pub fn text(out: &mut Vec<u8>, value: &str) {
    // Writing a string into a vector has no way to fail.
    let _ = serde_json::to_writer(out, value);
}

/// Append an integer.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    let _ = serde_json::to_writer(out, &value);
}

/// Append a double.
pub fn real(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        let _ = serde_json::to_writer(out, &value);
    } else if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value > 0.0 {
        out.extend_from_slice(b"\"Infinity\"");
    } else {
        out.extend_from_slice(b"\"-Infinity\"");
    }
}

/// A JSON object being written. Closed by `end`.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Open an object.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// Append a key and lend the buffer for its value.
    pub fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        // Keys are constants of this crate: nothing in them needs escaping.
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A text member.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        text(self.key(name), value);
        self
    }

    /// A text member, left out when there is none.
    pub fn maybe_text(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.text(name, value);
        }
        self
    }

    /// An integer member.
    pub fn integer(&mut self, name: &str, value: i64) -> &mut Self {
        integer(self.key(name), value);
        self
    }

    /// An integer member, left out when there is none.
    pub fn maybe_integer(&mut self, name: &str, value: Option<i64>) -> &mut Self {
        if let Some(value) = value {
            self.integer(name, value);
        }
        self
    }

    /// A double member.
    pub fn real(&mut self, name: &str, value: f64) -> &mut Self {
        real(self.key(name), value);
        self
    }

    /// A boolean member.
    pub fn boolean(&mut self, name: &str, value: bool) -> &mut Self {
        self.key(name).extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// A nested object.
    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        let out = self.key(name);
        let mut inner = Object::new(out);
        fill(&mut inner);
        inner.end();
        self
    }

    /// A list of anything, left out when empty.
    pub fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Vec<u8>, T),
    ) -> &mut Self {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return self;
        }
        let out = self.key(name);
        out.push(b'[');
        let mut first = true;
        for item in items {
            if !first {
                out.push(b',');
            }
            first = false;
            write(out, item);
        }
        out.push(b']');
        self
    }

    /// A list of `{"key":…,"value":…}`, left out when empty.
    pub fn pairs<'p>(&mut self, name: &str, pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> &mut Self {
        self.list(name, pairs, |out, (key, value)| {
            Object::new(out).text("key", key).text("value", value).end();
        })
    }

    /// Close the object.
    pub fn end(&mut self) {
        self.out.push(b'}');
    }
}

/// One whole object.
pub fn object(fill: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut writer = Object::new(&mut out);
    fill(&mut writer);
    writer.end();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fill: impl FnOnce(&mut Object<'_>), expect: &str) {
        assert_eq!(String::from_utf8(object(fill)).unwrap(), expect);
    }

    #[test]
    fn writes_what_the_client_reads() {
        check(|_| (), "{}");
        check(|o| _ = o.text("a", "b\"\n").integer("n", -3), r#"{"a":"b\"\n","n":-3}"#);
        check(|o| _ = o.list("l", Vec::<i64>::new(), integer), "{}");
        check(|o| _ = o.list("l", [1, 2], integer), r#"{"l":[1,2]}"#);
        check(|o| _ = o.real("v", f64::NAN).real("w", f64::NEG_INFINITY), r#"{"v":"NaN","w":"-Infinity"}"#);
        check(|o| _ = o.real("v", 0.1).real("w", 3.0), r#"{"v":0.1,"w":3.0}"#);
        check(|o| _ = o.pairs("tags", [("k", "v")]), r#"{"tags":[{"key":"k","value":"v"}]}"#);
        check(|o| _ = o.object("o", |i| _ = i.boolean("b", true)), r#"{"o":{"b":true}}"#);
    }
}
