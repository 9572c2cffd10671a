//! The encodings of a change's columns, written as Automerge writes them.
//!
//! [`rle`], [`delta`] and [`boolean`] write, the `read_` functions read what they wrote and panic on
//! what makes no sense. None of this is shared with the server: a mistake there must not be repeated
//! here.

/// What a run-length encoded column has in its rows.
pub trait Cell: Clone + PartialEq {
    /// Appends the value.
    fn pack(&self, out: &mut Vec<u8>);
    /// Takes the value off the front.
    fn unpack(from: &mut &[u8]) -> Self;
}

impl Cell for u64 {
    fn pack(&self, out: &mut Vec<u8>) {
        uleb(out, *self);
    }

    fn unpack(from: &mut &[u8]) -> Self {
        read_uleb(from)
    }
}

impl Cell for i64 {
    fn pack(&self, out: &mut Vec<u8>) {
        sleb(out, *self);
    }

    fn unpack(from: &mut &[u8]) -> Self {
        read_sleb(from)
    }
}

impl Cell for String {
    fn pack(&self, out: &mut Vec<u8>) {
        prefixed(out, self.as_bytes());
    }

    fn unpack(from: &mut &[u8]) -> Self {
        String::from_utf8(read_prefixed(from)).expect("UTF-8")
    }
}

/// Appends an unsigned LEB128.
pub fn uleb(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed LEB128.
pub fn sleb(out: &mut Vec<u8>, mut value: i64) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        let sign = byte & 0x40 != 0;
        if (value == 0 && !sign) || (value == -1 && sign) {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// Appends bytes behind their length.
pub fn prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    uleb(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes an unsigned LEB128 off the front.
pub fn read_uleb(from: &mut &[u8]) -> u64 {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = read_bytes(from, 1)[0];
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

/// Takes a signed LEB128 off the front.
pub fn read_sleb(from: &mut &[u8]) -> i64 {
    let mut value = 0_i64;
    let mut shift = 0;
    loop {
        let byte = read_bytes(from, 1)[0];
        value |= i64::from(byte & 0x7f).wrapping_shl(shift);
        shift += 7;
        if byte & 0x80 == 0 {
            if byte & 0x40 != 0 && shift < 64 {
                value |= -1_i64 << shift;
            }
            return value;
        }
    }
}

/// Takes so many bytes off the front.
pub fn read_bytes<'a>(from: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (bytes, rest) = from.split_at(length);
    *from = rest;
    bytes
}

/// Takes bytes behind their length off the front.
pub fn read_prefixed(from: &mut &[u8]) -> Vec<u8> {
    let length = read_uleb(from) as usize;
    read_bytes(from, length).to_vec()
}

/// A run-length encoded column: runs of equal values, of different values, of nulls.
pub fn rle<T: Cell>(rows: impl IntoIterator<Item = Option<T>>) -> Vec<u8> {
    let mut groups: Vec<(Option<T>, u64)> = Vec::new();
    for row in rows {
        match groups.last_mut() {
            Some((last, count)) if *last == row => *count += 1,
            _ => groups.push((row, 1)),
        }
    }
    let mut out = Vec::new();
    let mut different: Vec<T> = Vec::new();
    let flush = |out: &mut Vec<u8>, different: &mut Vec<T>| {
        if !different.is_empty() {
            sleb(out, -(different.len() as i64));
            different.drain(..).for_each(|value| value.pack(out));
        }
    };
    for (value, count) in groups {
        match value {
            Some(value) if count == 1 => different.push(value),
            Some(value) => {
                flush(&mut out, &mut different);
                sleb(&mut out, count as i64);
                value.pack(&mut out);
            }
            None => {
                flush(&mut out, &mut different);
                sleb(&mut out, 0);
                uleb(&mut out, count);
            }
        }
    }
    flush(&mut out, &mut different);
    out
}

/// As [`rle`], but nothing at all where every row is null.
pub fn rle_or_absent<T: Cell>(rows: impl IntoIterator<Item = Option<T>>) -> Vec<u8> {
    let rows: Vec<_> = rows.into_iter().collect();
    if rows.iter().all(Option::is_none) {
        return Vec::new();
    }
    rle(rows)
}

/// The rows of a run-length encoded column.
pub fn read_rle<T: Cell>(mut from: &[u8]) -> Vec<Option<T>> {
    let mut rows = Vec::new();
    while !from.is_empty() {
        match read_sleb(&mut from) {
            0 => {
                let nulls = read_uleb(&mut from);
                rows.extend((0..nulls).map(|_| None));
            }
            count @ 1.. => {
                let value = T::unpack(&mut from);
                rows.extend((0..count).map(|_| Some(value.clone())));
            }
            count => rows.extend((0..-count).map(|_| Some(T::unpack(&mut from)))),
        }
    }
    rows
}

/// Each row as its difference to the row before that is not null.
pub fn deltas(rows: impl IntoIterator<Item = Option<i64>>) -> Vec<Option<i64>> {
    let mut last = 0_i64;
    let delta = |row: Option<i64>| {
        row.map(|value| {
            let delta = value.wrapping_sub(last);
            last = value;
            delta
        })
    };
    rows.into_iter().map(delta).collect()
}

/// The rows of a delta column.
pub fn read_delta(from: &[u8]) -> Vec<Option<i64>> {
    let mut last = 0_i64;
    let value = |delta: Option<i64>| {
        delta.map(|delta| {
            last = last.wrapping_add(delta);
            last
        })
    };
    read_rle::<i64>(from).into_iter().map(value).collect()
}

/// A boolean column: counts of false, true, false, …
pub fn boolean(rows: impl IntoIterator<Item = bool>) -> Vec<u8> {
    let mut out = Vec::new();
    let (mut current, mut count) = (false, 0);
    for row in rows {
        if row != current {
            uleb(&mut out, count);
            (current, count) = (row, 0);
        }
        count += 1;
    }
    if count > 0 {
        uleb(&mut out, count);
    }
    out
}

/// The rows of a boolean column.
pub fn read_boolean(mut from: &[u8]) -> Vec<bool> {
    let (mut rows, mut current) = (Vec::new(), false);
    while !from.is_empty() {
        let count = read_uleb(&mut from);
        rows.extend((0..count).map(|_| current));
        current = !current;
    }
    rows
}
