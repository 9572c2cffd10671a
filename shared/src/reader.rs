//! A cursor that can not run past its end, nor leave bytes unread unnoticed.
//!
//! Used for the Automerge formats: sync messages, chunks and columns. Every read names what it
//! reads, so that an error says what was missing, where, and by how much.

use automerge::ChangeHash;

/// Appends an unsigned LEB128 number in its shortest form.
pub fn push_uleb(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The input ends too early.
    #[error("{what} at byte {offset} needs {needed} bytes, {present} are left")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it began, counted from the start of the outermost input.
        offset: usize,
        /// Bytes it needed.
        needed: u64,
        /// Bytes that were left.
        present: usize,
    },
    /// A LEB128 number that does not fit its type or has needless bytes. Automerge writes numbers
    /// in one way only, and hashes depend on it.
    #[error("{what} at byte {offset} is not a shortest-form number within range")]
    BadNumber {
        /// What was being read.
        what: &'static str,
        /// Where it began.
        offset: usize,
    },
    /// A count or a length above its bound.
    #[error("{what}: {count} is more than {limit}")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// What was claimed.
        count: u64,
        /// The bound.
        limit: u64,
    },
    /// Text that is not UTF-8.
    #[error("{what} at byte {offset} is not UTF-8")]
    NotUtf8 {
        /// What was being read.
        what: &'static str,
        /// Where it began.
        offset: usize,
    },
    /// Bytes after the end of what was read.
    #[error("{bytes} bytes after the end of {what}")]
    Leftover {
        /// What should have ended.
        what: &'static str,
        /// How many bytes follow it.
        bytes: usize,
    },
}

/// A bounded cursor over borrowed bytes.
///
/// `u8`, `uleb`, `sleb`, `take`, `hash` and `text` read one value; `count` reads a length and holds
/// it against a bound; `sub` hands out a reader of exactly the next bytes; `finish` refuses
/// leftovers.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            offset: 0,
        }
    }

    /// Bytes read so far, counted from the start of the outermost reader's input.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes left to read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes. `len` may be anything a peer claims.
    pub fn take(&mut self, len: u64, what: &'static str) -> Result<&'a [u8], ReadError> {
        let split = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len));
        let Some((taken, rest)) = split else {
            return Err(ReadError::Truncated {
                what,
                offset: self.offset,
                needed: len,
                present: self.rest.len(),
            });
        };
        self.rest = rest;
        self.offset += taken.len();
        Ok(taken)
    }

    /// A reader of exactly the next `len` bytes.
    pub fn sub(&mut self, len: u64, what: &'static str) -> Result<Reader<'a>, ReadError> {
        let offset = self.offset;
        let rest = self.take(len, what)?;
        Ok(Reader { rest, offset })
    }

    /// All that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        self.offset += self.rest.len();
        std::mem::take(&mut self.rest)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, ReadError> {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                self.offset += 1;
                Ok(*byte)
            }
            None => Err(ReadError::Truncated {
                what,
                offset: self.offset,
                needed: 1,
                present: 0,
            }),
        }
    }

    /// An unsigned LEB128 number of at most 64 bits in its shortest form.
    pub fn uleb(&mut self, what: &'static str) -> Result<u64, ReadError> {
        let offset = self.offset;
        let mut value = 0_u64;
        let mut shift = 0_u32;
        loop {
            let byte = self.u8(what)?;
            // The tenth byte holds the 64th bit alone; an eleventh would be too many.
            if shift == 63 && byte > 1 {
                return Err(ReadError::BadNumber { what, offset });
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(ReadError::BadNumber { what, offset });
                }
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A signed LEB128 number of at most 64 bits in its shortest form.
    pub fn sleb(&mut self, what: &'static str) -> Result<i64, ReadError> {
        let offset = self.offset;
        let mut value = 0_i64;
        let mut shift = 0_u32;
        let mut previous = 0_u8;
        loop {
            let byte = self.u8(what)?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                return Err(ReadError::BadNumber { what, offset });
            }
            value |= i64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                let overlong =
                    (byte == 0 && previous & 0x40 == 0) || (byte == 0x7f && previous & 0x40 != 0);
                if shift > 7 && overlong {
                    return Err(ReadError::BadNumber { what, offset });
                }
                if shift < 64 && byte & 0x40 != 0 {
                    value |= -1 << shift;
                }
                return Ok(value);
            }
            previous = byte;
        }
    }

    /// A LEB128 count or length that may be at most `limit`.
    pub fn count(&mut self, limit: u64, what: &'static str) -> Result<u64, ReadError> {
        let count = self.uleb(what)?;
        if count > limit {
            return Err(ReadError::TooMany { what, count, limit });
        }
        Ok(count)
    }

    /// A LEB128 length of at most `limit`, and that many bytes.
    pub fn prefixed(&mut self, limit: usize, what: &'static str) -> Result<&'a [u8], ReadError> {
        let len = self.count(limit as u64, what)?;
        self.take(len, what)
    }

    /// A LEB128 length of at most `limit`, and that many bytes of UTF-8.
    pub fn text(&mut self, limit: usize, what: &'static str) -> Result<&'a str, ReadError> {
        let offset = self.offset;
        let bytes = self.prefixed(limit, what)?;
        std::str::from_utf8(bytes).map_err(|_| ReadError::NotUtf8 { what, offset })
    }

    /// A 32-byte change hash.
    pub fn hash(&mut self, what: &'static str) -> Result<ChangeHash, ReadError> {
        Ok(ChangeHash(self.array(what)?))
    }

    /// `N` bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ReadError> {
        match self.rest.split_first_chunk() {
            Some((array, rest)) => {
                self.rest = rest;
                self.offset += N;
                Ok(*array)
            }
            None => Err(ReadError::Truncated {
                what,
                offset: self.offset,
                needed: N as u64,
                present: self.rest.len(),
            }),
        }
    }

    /// A LEB128 count of at most `limit`, and that many hashes. What is allocated is bounded by
    /// what is there, whatever the count claims.
    pub fn hashes(
        &mut self,
        limit: usize,
        what: &'static str,
    ) -> Result<Vec<ChangeHash>, ReadError> {
        let count = self.count(limit as u64, what)?;
        let bytes = self.take(count.saturating_mul(32), what)?;
        let (hashes, _none_left) = bytes.as_chunks::<32>();
        Ok(hashes.iter().map(|hash| ChangeHash(*hash)).collect())
    }

    /// Refuses bytes that are left.
    pub fn finish(&self, what: &'static str) -> Result<(), ReadError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(ReadError::Leftover { what, bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_encoding() {
        let uleb = |bytes: &[u8]| Reader::new(bytes).uleb("n");
        assert_eq!(uleb(&[0]), Ok(0));
        assert_eq!(uleb(&[0x80, 1]), Ok(128));
        assert_eq!(
            uleb(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Ok(u64::MAX)
        );
        for bad in [
            &[0x81, 0][..],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0x80; 11],
        ] {
            assert!(
                matches!(uleb(bad), Err(ReadError::BadNumber { .. })),
                "{bad:?}"
            );
        }
        assert!(matches!(uleb(&[0x80]), Err(ReadError::Truncated { .. })));

        let sleb = |bytes: &[u8]| Reader::new(bytes).sleb("n");
        assert_eq!(sleb(&[0x7f]), Ok(-1));
        assert_eq!(sleb(&[0x40]), Ok(-64));
        assert_eq!(sleb(&[0x80, 1]), Ok(128));
        let min = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f];
        assert_eq!(sleb(&min), Ok(i64::MIN));
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(sleb(&max), Ok(i64::MAX));
        for bad in [
            &[0xbf, 0][..],
            &[0x81, 0xff, 0x7f],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(
                matches!(sleb(bad), Err(ReadError::BadNumber { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        // 2^63 bytes claimed, none there.
        let claim = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1];
        let mut reader = Reader::new(&claim);
        assert_eq!(
            reader.prefixed(usize::MAX, "blob"),
            Err(ReadError::Truncated {
                what: "blob",
                offset: 10,
                needed: 1 << 63,
                present: 0
            })
        );
        assert!(matches!(
            Reader::new(&claim).hashes(100, "heads"),
            Err(ReadError::TooMany { limit: 100, .. })
        ));
    }

    #[test]
    fn leftovers_are_refused_by_name() {
        let mut reader = Reader::new(&[1, 2, 3]);
        let mut part = reader.sub(2, "part").unwrap();
        assert_eq!(part.u8("first"), Ok(1));
        assert_eq!(
            part.finish("part"),
            Err(ReadError::Leftover {
                what: "part",
                bytes: 1
            })
        );
        assert_eq!(reader.offset(), 2);
        assert_eq!(reader.take_rest(), &[3]);
        assert_eq!(reader.finish("all"), Ok(()));
    }
}
