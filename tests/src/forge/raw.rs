//! Changes wrong below the model: bytes that no encoder of columns writes, with a good checksum.

use bytes::Bytes;

use super::columns::{read_rle, read_uleb, sleb, uleb};
use super::model::{ChangeModel, framed};
use super::source::Source;

/// The change with a column, or a byte anywhere, written otherwise.
pub fn mutate_bytes(source: &mut Source<'_>, model: &ChangeModel) -> Bytes {
    let mut columns = model.columns();
    if columns.is_empty() || source.chance(6) {
        return any_byte(source, &model.encode());
    }
    let at = source.below(columns.len());
    let (spec, bytes) = &mut columns[at];
    match source.below(12) {
        0 => split_runs(*spec, bytes),
        1 => {
            // Another claim of how long the first run is.
            let last = bytes.iter().position(|byte| byte & 0x80 == 0);
            let rest = &bytes[last.map_or(bytes.len(), |last| last + 1)..];
            let mut other = Vec::new();
            sleb(
                &mut other,
                source.pick(&[0, 1, 2, -1, -2, 50_000_000, i64::MAX, i64::MIN]),
            );
            other.extend_from_slice(rest);
            *bytes = other;
        }
        2 => bytes.extend([0, 1]),
        3 => bytes.extend([0, 0]),
        4 => bytes.extend([1, 0]),
        5 => bytes.truncate(source.below(bytes.len())),
        6 => {
            let at = source.below(bytes.len());
            bytes[at] = source.below(256) as u8;
        }
        7 => {
            let at = source.below(bytes.len() + 1);
            bytes.insert(at, source.below(256) as u8);
        }
        8 => {
            columns.remove(at);
        }
        9 => {
            let other = source.below(columns.len());
            columns.swap(at, other);
        }
        10 => *spec = source.pick(&[*spec | 8, *spec ^ 1, 0x03, 0x80, 0xb6, u64::MAX]),
        _ => {
            let doubled = columns[at].clone();
            columns.insert(at, doubled);
        }
    }
    model.encode_with(&columns)
}

/// Every row of a run-length encoded column in a run of its own: the same rows in more bytes.
fn split_runs(spec: u64, bytes: &mut Vec<u8>) {
    let integers = matches!(spec & 7, 0..=2 | 6);
    if !integers {
        return;
    }
    let rows = read_rle::<u64>(bytes);
    bytes.clear();
    for row in rows {
        match row {
            Some(value) => {
                sleb(bytes, 1);
                uleb(bytes, value);
            }
            None => bytes.extend([0, 1]),
        }
    }
}

fn any_byte(source: &mut Source<'_>, chunk: &Bytes) -> Bytes {
    let mut rest = &chunk[9..];
    read_uleb(&mut rest);
    let mut data = rest.to_vec();
    if data.is_empty() {
        return chunk.clone();
    }
    let at = source.below(data.len());
    match source.below(4) {
        0 => {
            data.remove(at);
        }
        1 => data.insert(at, source.below(256) as u8),
        2 => data.truncate(at),
        _ => data[at] ^= 1 << source.below(8),
    }
    framed(&data)
}
