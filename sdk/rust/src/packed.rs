//! Reads the packed buffers in which the host answers scans and selections.
//!
//! Owns [`Reader`]. Separate because keys, documents and texts share the layout: little endian, lengths in four bytes.
//! Bounded by: the buffer. On failure: a buffer that does not hold what its counts promise is a fault of the host; reading
//! it panics, which ends this call with a trap and nothing else.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = self.u32() as usize;
        let (bytes, rest) = self.0.split_at_checked(length).expect(SHORT);
        self.0 = rest;
        bytes
    }

    pub(crate) fn text(&mut self) -> &'a str {
        std::str::from_utf8(self.bytes()).expect("the host packed text that is not UTF-8")
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.array())
    }

    pub(crate) fn f64(&mut self) -> f64 {
        f64::from_le_bytes(self.array())
    }

    pub(crate) fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (array, rest) = self.0.split_first_chunk().expect(SHORT);
        self.0 = rest;
        *array
    }
}

const SHORT: &str = "the host's buffer ends before what it promised";
