//! Random numbers and what they do to bytes.

use std::ops::Range;

/// Xorshift: quick, and the same sequence for a seed everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next() % n as u64) as usize }
    }
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
    /// −1 … 1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0
    }
}

/// Numbers at which readers of JSON and of sizes stumble.
const NUMBERS: [&str; 20] = [
    "0",
    "1",
    "2",
    "15",
    "16",
    "17",
    "255",
    "256",
    "4096",
    "4097",
    "65536",
    "1048576",
    "1048577",
    "4294967295",
    "4294967296",
    "18446744073709551615",
    "1e308",
    "-1",
    "1.5",
    "null",
];
/// The same for 32-bit fields.
const WORDS: [u32; 7] = [0, 1, u32::MAX, 1 << 31, 1 << 20, (1 << 20) + 1, 0x7fff_ffff];
/// Floats at the ends of what is allowed, and beyond.
const FLOATS: [f32; 12] = [
    1e4,
    -1e4,
    0.0,
    -0.0,
    1e-45,
    1e-38,
    3e-39,
    9999.0,
    1e38,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
];

/// One to four changes of bytes in `range`.
pub fn bytes(random: &mut Random, data: &mut Vec<u8>, range: Range<usize>) {
    for _ in 0..1 + random.below(4) {
        if data.is_empty() || range.is_empty() {
            return;
        }
        let at = (range.start + random.below(range.len())).min(data.len() - 1);
        let rest = data.len() - at;
        match random.below(9) {
            0 => data[at] ^= 1 << random.below(8),
            1 => data[at] = random.next() as u8,
            2 => data[at] = random.pick(b"\x00\x01\x7f\x80\xff\"{09-,]}:\\"),
            3 => drop(data.remove(at)),
            4 => data.insert(at, random.next() as u8),
            5 => {
                let len = rest.min(4);
                let word = random.pick(&WORDS).to_le_bytes();
                data[at..at + len].copy_from_slice(&word[..len]);
            }
            6 => {
                let from = random.below(data.len());
                let len = random.below(64).min(data.len() - from);
                let piece = data[from..from + len].to_vec();
                let replaced = if random.below(2) == 0 { len.min(rest) } else { 0 };
                data.splice(at..at + replaced, piece);
            }
            7 => drop(data.drain(at..at + random.below(32).min(rest))),
            _ => number(random, data, at),
        }
    }
}

/// Replaces the decimal number at or before `at`.
fn number(random: &mut Random, data: &mut Vec<u8>, at: usize) {
    let is_digit = |&byte: &u8| byte.is_ascii_digit();
    let Some(last) = data[..=at].iter().rposition(is_digit) else { return };
    let first = data[..last].iter().rposition(|byte| !is_digit(byte)).map_or(0, |place| place + 1);
    let end =
        last + data[last..].iter().position(|byte| !is_digit(byte)).unwrap_or(data.len() - last);
    data.splice(first..end, random.pick(&NUMBERS).bytes());
}

/// A change of a model file: of its length field, its header, its floats or its weights.
pub fn model_file(random: &mut Random, file: &mut Vec<u8>) {
    let Some(length) = file.first_chunk::<8>() else { return };
    let header = 8 + u64::from_le_bytes(*length).min(1 << 20) as usize;
    let end = file.len();
    if header >= end {
        return bytes(random, file, 0..end);
    }
    match random.below(8) {
        0 => bytes(random, file, 0..8),
        1 | 2 => {
            bytes(random, file, 8..header);
            if random.below(2) == 0 {
                // With the length that it has now.
                let length = (header - 8 + file.len()).saturating_sub(end) as u64;
                file[..8].copy_from_slice(&length.to_le_bytes());
            }
        }
        3 => file.truncate(random.below(end)),
        4 => {
            for _ in 0..1 + random.below(30) {
                let at = header + random.below((end - header) / 4) * 4;
                if at + 4 <= end {
                    let value = random.pick(&FLOATS).to_le_bytes();
                    file[at..at + 4].copy_from_slice(&value);
                }
            }
        }
        5 => {
            for _ in 0..1 + random.below(20) {
                let at = header + random.below(end - header);
                file[at] = random.next() as u8;
            }
        }
        // The tokenizer comes last.
        6 => bytes(random, file, end.saturating_sub(1500)..end),
        _ => {
            for _ in 0..random.below(400) {
                let at = header + random.below(end - header);
                file[at] = random.pick(&[63u8, 0, 127, 193, 129]);
            }
        }
    }
}

/// A text of characters that normalizers, word splitting and unknown pieces care about.
pub fn text(random: &mut Random) -> String {
    const CHARS: &str = "가나다한글값뷁q: ▁<s>ﬁ\u{fdfa}😀\u{3000}\né\u{301}\u{1100}\u{1161}\u{11a8}\u{1}\u{200b}\u{10ffff}";
    let chars: Vec<char> = CHARS.chars().collect();
    let len = random.pick(&[0, 1, 3, 10, 40, 300]);
    (0..len).map(|_| chars[random.below(chars.len())]).collect()
}
