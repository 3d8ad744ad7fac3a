//! What a plugin may do: capabilities by name, kept as bits so that the check costs one instruction.
//!
//! The runtime knows no mechanism, so it does not know which capabilities exist: the floor above registers them as
//! constants and gives the list.

use mainstay_base::{Error, Result};

/// One right that a manifest can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its place in [`Grants`], 0 to 62; [`Capability::AMBIENT`] has the last one.
    pub bit: u8,
    /// Its name in manifests, for example `directory.read`.
    pub name: &'static str,
    /// What it allows, in words for the person who is asked.
    pub allows: &'static str,
}

impl Capability {
    /// What every plugin may do: read its configuration, log, ask the time, get random numbers, answer.
    pub const AMBIENT: Capability = Capability { bit: 63, name: "(none needed)", allows: "everybody may" };
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    bits: u64,
}

impl Default for Grants {
    fn default() -> Grants {
        Grants { bits: 1 << Capability::AMBIENT.bit }
    }
}

impl Grants {
    /// The set of the named capabilities of `registered`; an unknown name is `invalid` and the message lists the known.
    pub fn from_names<S: AsRef<str>>(registered: &[Capability], names: &[S]) -> Result<Grants> {
        names.iter().try_fold(Grants::default(), |grants, name| {
            let name = name.as_ref();
            match registered.iter().find(|capability| capability.name == name) {
                Some(capability) => Ok(grants.with(*capability)),
                None => {
                    let known = registered.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
                    Err(Error::invalid(format!("there is no capability `{name}`; this host knows {known}")))
                }
            }
        })
    }

    /// This set and one more.
    pub fn with(self, capability: Capability) -> Grants {
        Grants { bits: self.bits | 1 << capability.bit }
    }

    /// Whether the set holds it.
    #[inline]
    pub fn allow(self, capability: Capability) -> bool {
        self.bits >> capability.bit & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Capability = Capability { bit: 0, name: "read", allows: "reading" };
    const WRITE: Capability = Capability { bit: 62, name: "write", allows: "writing" };

    #[test]
    fn only_what_was_named_is_granted() {
        fn check(names: &[&str], read: bool, write: bool) {
            let grants = Grants::from_names(&[READ, WRITE], names).unwrap();
            assert_eq!((grants.allow(READ), grants.allow(WRITE)), (read, write));
            assert!(grants.allow(Capability::AMBIENT));
        }
        check(&[], false, false);
        check(&["read"], true, false);
        check(&["write"], false, true);
        check(&["read", "write"], true, true);
        let error = Grants::from_names(&[READ, WRITE], &["fly"]).unwrap_err();
        assert_eq!(error.message(), "there is no capability `fly`; this host knows read, write");
    }
}
