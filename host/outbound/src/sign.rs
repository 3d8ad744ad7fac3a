//! Signing a call, as data.
//!
//! Owns [`Signing`]: HMAC-SHA256 (RFC 2104, FIPS 180-4) over a template, with the names of the headers that carry the result.
//! General enough for what receivers check: the Standard Webhooks specification, a digest of the body alone, and formats with
//! the same parts under other names. Separate from calls because it is pure: secrets, time and name come in, headers go out.
//!
//! Bounded by [`TEMPLATE_BYTES_MAX`] and [`SIGNING_SECRETS_MAX`]. On failure: a template with an unknown part, or a secret of
//! another form than it says, is `invalid`; no message contains a secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_base::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::limits::{SIGNING_SECRETS_MAX, TEMPLATE_BYTES_MAX};

/// How a call is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Signing {
    /// Names of the owner's secrets. With several, as while one replaces another, each makes a signature; they stand behind
    /// each other with a space between.
    pub secrets: Vec<String>,
    /// What the secrets are.
    #[serde(default)]
    pub secret_form: SecretForm,
    /// What is signed, with `{id}`, `{timestamp}` and `{body}` replaced.
    pub template: String,
    /// How a signature is written.
    pub encoding: Encoding,
    /// The header of the signatures.
    pub header: String,
    /// What stands before each signature.
    #[serde(default)]
    pub prefix: String,
    /// The header of the call's name, if it has one.
    #[serde(default)]
    pub id_header: Option<String>,
    /// The header of the time, if it has one: whole seconds since 1970.
    #[serde(default)]
    pub timestamp_header: Option<String>,
}

/// What a signing secret is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SecretForm {
    /// The key itself.
    #[default]
    Raw,
    /// The key in base64, perhaps behind `whsec_`.
    Base64,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Base64 with padding.
    Base64,
}

impl Signing {
    /// As the Standard Webhooks specification says (symmetric signatures).
    pub fn standard_webhooks(secret: impl Into<String>) -> Signing {
        Signing {
            secrets: vec![secret.into()],
            secret_form: SecretForm::Base64,
            template: "{id}.{timestamp}.{body}".to_owned(),
            encoding: Encoding::Base64,
            header: "webhook-signature".to_owned(),
            prefix: "v1,".to_owned(),
            id_header: Some("webhook-id".to_owned()),
            timestamp_header: Some("webhook-timestamp".to_owned()),
        }
    }

    /// Nothing is signed: only the call's name and the time go along, in these headers.
    pub fn unsigned(id_header: Option<String>, timestamp_header: Option<String>) -> Signing {
        Signing {
            secrets: Vec::new(),
            secret_form: SecretForm::Raw,
            template: String::new(),
            encoding: Encoding::Hex,
            header: String::new(),
            prefix: String::new(),
            id_header,
            timestamp_header,
        }
    }

    /// None where nothing is signed.
    fn signature_header(&self) -> Option<&String> {
        (!self.secrets.is_empty()).then_some(&self.header)
    }

    /// Everything that can be said of it without a secret.
    pub fn check(&self) -> Result<()> {
        let count = self.secrets.len();
        if count > SIGNING_SECRETS_MAX || (count == 0 && !self.header.is_empty()) {
            return Err(Error::invalid(format!("{count} secrets to sign with; it must be 1 to {SIGNING_SECRETS_MAX}")));
        }
        for header in
            [self.signature_header(), self.id_header.as_ref(), self.timestamp_header.as_ref()].into_iter().flatten()
        {
            crate::request::check_header_name(header)?;
        }
        value(&self.prefix)?;
        match self.secrets.is_empty() {
            true => Ok(()),
            false => parts(&self.template).map(|_| ()),
        }
    }

    /// The headers of a signed call.
    pub(crate) fn sign(
        &self,
        secrets: &[Zeroizing<Vec<u8>>],
        id: &str,
        timestamp_s: i64,
        body: &[u8],
    ) -> Result<HeaderMap> {
        let timestamp = timestamp_s.to_string();
        let mut signatures = Vec::with_capacity(secrets.len());
        for (secret, name) in secrets.iter().zip(&self.secrets) {
            let key = self.key(secret, name)?;
            let mut mac = Hmac::<Sha256>::new_from_slice(&key)
                .map_err(|_| Error::invalid(format!("secret `{name}` cannot be a signing key")))?;
            for part in parts(&self.template)? {
                match part {
                    Part::Text(text) => mac.update(text.as_bytes()),
                    Part::Id => mac.update(id.as_bytes()),
                    Part::Timestamp => mac.update(timestamp.as_bytes()),
                    Part::Body => mac.update(body),
                }
            }
            let digest = mac.finalize().into_bytes();
            let written = match self.encoding {
                Encoding::Hex => hex::encode(digest),
                Encoding::Base64 => STANDARD.encode(digest),
            };
            signatures.push(format!("{}{written}", self.prefix));
        }
        let mut headers = HeaderMap::new();
        let named = [
            (self.signature_header(), signatures.join(" ")),
            (self.id_header.as_ref(), id.to_owned()),
            (self.timestamp_header.as_ref(), timestamp),
        ];
        for (name, text) in named {
            if let Some(name) = name {
                headers.insert(crate::request::check_header_name(name)?, value(&text)?);
            }
        }
        Ok(headers)
    }

    fn key(&self, secret: &[u8], name: &str) -> Result<Zeroizing<Vec<u8>>> {
        match self.secret_form {
            SecretForm::Raw => Ok(Zeroizing::new(secret.to_vec())),
            SecretForm::Base64 => {
                let text = secret.strip_prefix(b"whsec_").unwrap_or(secret);
                // The decoder's own message would quote a byte of the secret.
                let decoded =
                    STANDARD.decode(text).map_err(|_| Error::invalid(format!("secret `{name}` is no base64")))?;
                Ok(Zeroizing::new(decoded))
            }
        }
    }
}

fn value(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Error::invalid("a part of the signature cannot stand in a header"))
}

enum Part<'a> {
    Text(&'a str),
    Id,
    Timestamp,
    Body,
}

/// What a template is made of.
fn parts(template: &str) -> Result<Vec<Part<'_>>> {
    let length = template.len();
    if !(1..=TEMPLATE_BYTES_MAX).contains(&length) {
        return Err(Error::invalid(format!("a template of {length} bytes; it has 1 to {TEMPLATE_BYTES_MAX}")));
    }
    let unknown = || Error::invalid("the template has a part that is none of `{id}`, `{timestamp}` and `{body}`");
    let (mut parts, mut rest) = (Vec::new(), template);
    while let Some((before, behind)) = rest.split_once('{') {
        let (name, behind) = behind.split_once('}').ok_or_else(unknown)?;
        let part = match name {
            "id" => Part::Id,
            "timestamp" => Part::Timestamp,
            "body" => Part::Body,
            _ => return Err(unknown()),
        };
        parts.extend([Part::Text(before), part]);
        rest = behind;
    }
    parts.push(Part::Text(rest));
    let is_stray = |part: &Part<'_>| matches!(part, Part::Text(text) if text.contains('}'));
    if parts.iter().any(is_stray) { Err(unknown()) } else { Ok(parts) }
}

/// Names of headers that a signature sets.
pub(crate) fn names(signing: &Signing) -> impl Iterator<Item = HeaderName> + '_ {
    let names = [Some(&signing.header), signing.id_header.as_ref(), signing.timestamp_header.as_ref()];
    names.into_iter().flatten().filter_map(|name| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_secret_only_name_and_time_go_along() {
        let signing = Signing::unsigned(Some("x-id".to_owned()), Some("x-time".to_owned()));
        signing.check().unwrap();
        let headers = signing.sign(&[], "msg_1", 7, b"body").unwrap();
        assert_eq!(
            (headers.len(), &headers["x-id"], &headers["x-time"]),
            (2, &"msg_1".parse().unwrap(), &"7".parse().unwrap())
        );
        assert!(Signing { header: "x-signature".to_owned(), ..signing }.check().is_err(), "a signature needs a secret");
    }

    fn check(signing: &Signing, secrets: &[&[u8]], id: &str, timestamp_s: i64, body: &[u8], expect: &str) {
        let secrets: Vec<_> = secrets.iter().map(|secret| Zeroizing::new(secret.to_vec())).collect();
        let headers = signing.sign(&secrets, id, timestamp_s, body).unwrap();
        assert_eq!(headers[&signing.header], expect);
        let of = |name: &Option<String>| name.as_ref().map(|name| headers[name].to_str().unwrap().to_owned());
        assert_eq!(of(&signing.id_header).unwrap_or(id.into()), id);
        assert_eq!(of(&signing.timestamp_header).unwrap_or(timestamp_s.to_string()), timestamp_s.to_string());
    }

    fn plain(template: &str, encoding: Encoding, prefix: &str) -> Signing {
        Signing {
            secrets: vec!["s".into()],
            secret_form: SecretForm::Raw,
            template: template.into(),
            encoding,
            header: "x-signature".into(),
            prefix: prefix.into(),
            id_header: None,
            timestamp_header: None,
        }
    }

    /// The expected values are from `hmac` and `hashlib` of Python 3.11.
    #[test]
    fn signatures_are_those_of_an_independent_library() {
        // The example of the Standard Webhooks libraries.
        let standard = Signing::standard_webhooks("s");
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let expect = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        check(&standard, &[b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], id, 1_614_265_330, body, expect);
        check(&standard, &[b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], id, 1_614_265_330, body, expect);

        // The same parts under other names, with the secret as the key itself.
        let mut named = plain("{id}.{timestamp}.{body}", Encoding::Base64, "v1,");
        named.id_header = Some("X-Delivery-Id".into());
        named.timestamp_header = Some("X-Timestamp".into());
        let body = br#"{"entity":"version","action":"created"}"#;
        let id = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";
        check(&named, &[b"my-secret"], id, 1_700_000_000, body, "v1,sBNCkqdswEQ9Bh5kRhDqDkDT2Rbe2/idu4GWtFwivTs=");

        // A digest of the body alone, as in GitHub's documentation.
        let body_only = plain("{body}", Encoding::Hex, "sha256=");
        let expect = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        check(&body_only, &[b"It's a Secret to Everybody"], "", 0, b"Hello, World!", expect);

        // Two secrets, and a body that is no text.
        let mut both = plain("{id}.{timestamp}.{body}", Encoding::Base64, "v1,");
        both.secrets.push("t".into());
        let expect = "v1,VKmjVNOX7WYelkqreD4/nkNj+B7GNdOfG5ln5i081+8= v1,i26thf3QKM/MnZo139qyuPaX3iBTgXHQrQhIl83rnn0=";
        check(&both, &[b"k1", b"k2"], "a", 5, b"\xff\x00", expect);
    }

    #[test]
    fn what_makes_no_signature_is_refused() {
        fn check(change: impl FnOnce(&mut Signing), expect: &str) {
            let mut signing = Signing::standard_webhooks("s");
            change(&mut signing);
            match signing.check() {
                Ok(()) => assert_eq!(expect, "", "{signing:?}"),
                Err(error) => assert!(!expect.is_empty() && error.message().contains(expect), "{error}"),
            }
        }
        check(|_| {}, "");
        check(|signing| signing.secrets = vec!["s".into(); 4], "");
        check(|signing| signing.secrets = vec!["s".into(); 5], "1 to 4");
        check(|signing| signing.secrets.clear(), "1 to 4");
        check(|signing| signing.template = "x".repeat(1_024), "");
        check(|signing| signing.template = "x".repeat(1_025), "1 to 1024");
        for template in ["{ids}", "{", "}", "a}{body}", "{body", "{}"] {
            check(|signing| signing.template = template.into(), "none of");
        }
        check(|signing| signing.header = "host".into(), "host");
        check(|signing| signing.prefix = "a\nb".into(), "header");
        let secrets = [Zeroizing::new(b"not base64, top secret!".to_vec())];
        let error = Signing::standard_webhooks("name").sign(&secrets, "i", 0, b"").unwrap_err();
        assert!(error.message().contains("name") && !format!("{error:?}").contains("top"), "{error:?}");
    }
}
