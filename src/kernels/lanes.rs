//! Floats side by side: what the row functions are written in, once, for every instruction set. An
//! implementation holds sixteen in one 512-bit, two 256-bit or four 128-bit registers; each operation
//! is correctly rounded (or exact), so all give the same bits.

use crate::quant::ROUNDING_MAGIC;

/// Columns are padded to a multiple of this many; also the number of partial sums of every float
/// reduction.
pub const LANES: usize = 16;

/// `n` rounded up to a multiple of [`LANES`].
pub const fn padded(n: usize) -> usize {
    n.div_ceil(LANES) * LANES
}

/// Sixteen values of a row, padded to whole lanes.
#[inline(always)]
pub(super) fn sixteen<T>(row: &[T], at: usize) -> &[T; LANES] {
    row[at..at + LANES].try_into().expect("rows are padded to whole lanes")
}

#[inline(always)]
pub(super) fn sixteen_mut<T>(row: &mut [T], at: usize) -> &mut [T; LANES] {
    (&mut row[at..at + LANES]).try_into().expect("rows are padded to whole lanes")
}

/// Joins partial sums in the fixed tree: 16 → 8 → 4 → 2 → 1.
#[inline(always)]
pub(super) fn tree(mut sums: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] = join(sums[i], sums[i + width]);
        }
        width /= 2;
    }
    sums[0]
}

/// The floats of `x`, zeros where it has fewer than sixteen.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn array<L: Lanes>(x: L) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    // SAFETY: the caller's.
    unsafe { x.store(&mut out) };
    out
}

/// Joins [`LANES`] partial sums in the fixed tree: 16 → 8 → 4 → 2 → 1.
pub(crate) fn tree_sum(sums: [f32; LANES]) -> f32 {
    tree(sums, |a, b| a + b)
}

/// [`Lanes::WIDTH`] `f32` lanes.
///
/// # Safety
/// Every function may be called only where the CPU has the implementation's instruction set, and
/// with slices of at least `WIDTH` values.
pub(super) trait Lanes: Copy {
    /// Lanes of the value, which divide [`LANES`]. Sums across a row need all [`LANES`].
    const WIDTH: usize;
    /// As many `i32` lanes.
    type Int: Copy;
    /// 16-bit integers.
    type Shorts: Shorts;
    /// What long chains of operations are done in: no wider than registers hold all that a chain
    /// needs at once.
    type Few: Lanes;

    unsafe fn splat(x: f32) -> Self;
    /// [`splat`](Self::splat) of a number that many operations use: made once, outside of a loop.
    #[inline(always)]
    unsafe fn constant(x: f32) -> Self {
        // SAFETY: the caller's.
        unsafe { Self::splat(x) }
    }
    unsafe fn load(from: &[f32]) -> Self;
    unsafe fn store(self, to: &mut [f32]);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `if other < self { other } else { self }`.
    unsafe fn min(self, other: Self) -> Self;
    /// `if self < other { other } else { self }`.
    unsafe fn max(self, other: Self) -> Self;
    /// The magnitudes.
    unsafe fn abs(self) -> Self;
    /// The bits, unchanged.
    unsafe fn bits(self) -> Self::Int;
    /// The float with these bits.
    unsafe fn from_bits(bits: Self::Int) -> Self;
    /// The nearest float, ties to even.
    unsafe fn from_int(x: Self::Int) -> Self;

    unsafe fn splat_int(x: i32) -> Self::Int;
    unsafe fn load_int(from: &[i32]) -> Self::Int;
    unsafe fn add_int(a: Self::Int, b: Self::Int) -> Self::Int;
    /// `x << 23`: an integer's place in a float's exponent.
    unsafe fn to_exponent(x: Self::Int) -> Self::Int;
    /// Clamps to 0 … 127 and stores. Lanes lie within 16 bits.
    unsafe fn store_u7(x: Self::Int, to: &mut [u8]);
    /// Stores lanes that lie within 16 bits.
    unsafe fn store_i16(x: Self::Int, to: &mut [i16]);
    /// Stores `a[0], b[0], a[1], b[1], …`, twice `WIDTH` values; lanes lie within 16 bits.
    unsafe fn store_pairs(a: Self::Int, b: Self::Int, to: &mut [i16]);

    /// Stores the nearest integers, ties to even, which lie within 16 bits. `magic` is
    /// [`ROUNDING_MAGIC`] in all lanes.
    #[inline(always)]
    unsafe fn store_rounded(self, _magic: Self, to: &mut [i16]) {
        // SAFETY: the caller's.
        unsafe { Self::store_i16(self.round_plus(0), to) }
    }
    /// The sum of a whole row of integers.
    #[inline(always)]
    unsafe fn sum_i16(row: &[i16]) -> i32 {
        row.iter().map(|&x| x as i32).sum()
    }
    /// The sum of all lanes, which are [`LANES`], in the fixed tree.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        const { assert!(Self::WIDTH == LANES) };
        // SAFETY: the caller's.
        tree(unsafe { array(self) }, |a, b| a + b)
    }
    /// The lowest lane; of numbers it is the same in any order.
    #[inline(always)]
    unsafe fn lowest(self) -> f32 {
        const { assert!(Self::WIDTH == LANES) };
        // SAFETY: the caller's.
        tree(unsafe { array(self) }, |a, b| if b < a { b } else { a })
    }
    /// The highest lane; of numbers it is the same in any order.
    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        const { assert!(Self::WIDTH == LANES) };
        // SAFETY: the caller's.
        tree(unsafe { array(self) }, |a, b| if a < b { b } else { a })
    }

    /// Nearest integer, ties to even, plus `offset`; see [`crate::quant::round_to_i32`].
    #[inline(always)]
    unsafe fn round_plus(self, offset: i32) -> Self::Int {
        // SAFETY: the caller's.
        unsafe {
            let bits = self.add(Self::splat(ROUNDING_MAGIC)).bits();
            let offset = offset.wrapping_sub(ROUNDING_MAGIC.to_bits() as i32);
            Self::add_int(bits, Self::splat_int(offset))
        }
    }
}

/// [`Shorts::WIDTH`] `i16` lanes.
///
/// # Safety
/// As [`Lanes`].
pub(super) trait Shorts: Copy {
    /// Lanes of the value, which divide [`LANES`].
    const WIDTH: usize;

    /// The number in all lanes: made once, outside of a loop, as [`Lanes::constant`].
    unsafe fn constant(x: i16) -> Self;
    /// `(best − scores) / 2^shift`, rounded down and clamped to 16 bits; the difference wraps.
    unsafe fn below(best: i32, scores: &[i32], shift: u32) -> Self;
    unsafe fn store(self, to: &mut [i16]);
    unsafe fn sub(self, other: Self) -> Self;
    /// The low 16 bits of the product.
    unsafe fn mul(self, other: Self) -> Self;
    /// `round(self · other / 2¹⁵)`, ties up, where not both are −2¹⁵.
    unsafe fn scale(self, other: Self) -> Self;
    /// `self / 1024`, rounded down.
    unsafe fn halvings(self) -> Self;
    /// What is left of a 1024th part, in units of 2⁻¹⁵.
    unsafe fn fraction(self) -> Self;
    /// A difference of bytes, which wraps.
    unsafe fn sub_bytes(self, other: Self) -> Self;
    /// A table of bytes for [`at`](Self::at): 1, 2, 4 … 128, then eight times 0.
    unsafe fn powers() -> Self;
    /// The bytes of this table at the places that the bytes of `places` name, below 16; 0 for
    /// negative ones.
    unsafe fn at(self, places: Self) -> Self;
}

/// The bytes of [`Shorts::powers`].
pub(super) const POWERS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0];

/// The definition of [`Shorts`].
#[derive(Clone, Copy)]
pub(super) struct PlainShorts([i16; LANES]);

impl PlainShorts {
    fn by_bytes(self, other: Self, f: impl Fn(u8, u8) -> u8) -> Self {
        PlainShorts(each(self.0, other.0, |a, b| {
            let ([a, c], [b, d]) = (a.to_le_bytes(), b.to_le_bytes());
            i16::from_le_bytes([f(a, b), f(c, d)])
        }))
    }
}

impl Shorts for PlainShorts {
    const WIDTH: usize = LANES;

    unsafe fn constant(x: i16) -> Self {
        PlainShorts([x; LANES])
    }
    unsafe fn below(best: i32, scores: &[i32], shift: u32) -> Self {
        let clamp = |x: i32| x.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
        PlainShorts(std::array::from_fn(|i| clamp(best.wrapping_sub(scores[i]) >> shift)))
    }
    unsafe fn store(self, to: &mut [i16]) {
        to[..LANES].copy_from_slice(&self.0);
    }
    unsafe fn sub(self, other: Self) -> Self {
        PlainShorts(each(self.0, other.0, i16::wrapping_sub))
    }
    unsafe fn mul(self, other: Self) -> Self {
        PlainShorts(each(self.0, other.0, i16::wrapping_mul))
    }
    unsafe fn scale(self, other: Self) -> Self {
        let product = |a, b| ((i32::from(a) * i32::from(b) + (1 << 14)) >> 15) as i16;
        PlainShorts(each(self.0, other.0, product))
    }
    unsafe fn halvings(self) -> Self {
        PlainShorts(self.0.map(|x| x >> 10))
    }
    unsafe fn fraction(self) -> Self {
        PlainShorts(self.0.map(|x| (x << 5) & i16::MAX))
    }
    unsafe fn sub_bytes(self, other: Self) -> Self {
        self.by_bytes(other, u8::wrapping_sub)
    }
    unsafe fn powers() -> Self {
        PlainShorts(std::array::from_fn(|i| {
            i16::from_le_bytes([POWERS[2 * (i % 8)], POWERS[2 * (i % 8) + 1]])
        }))
    }
    unsafe fn at(self, places: Self) -> Self {
        places.by_bytes(places, |place, _| match usize::from(place) {
            place @ 0..16 => self.0[place / 2].to_le_bytes()[place % 2],
            _ => 0,
        })
    }
}

/// The definition.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; LANES]);

fn each<T: Copy, U: Copy, V>(a: [T; LANES], b: [U; LANES], f: impl Fn(T, U) -> V) -> [V; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for Plain {
    const WIDTH: usize = LANES;
    type Int = [i32; LANES];
    type Shorts = PlainShorts;
    type Few = Self;

    unsafe fn splat(x: f32) -> Self {
        Plain([x; LANES])
    }
    unsafe fn load(from: &[f32]) -> Self {
        Plain(from[..LANES].try_into().expect("sixteen values"))
    }
    unsafe fn store(self, to: &mut [f32]) {
        to[..LANES].copy_from_slice(&self.0);
    }
    unsafe fn add(self, other: Self) -> Self {
        Plain(each(self.0, other.0, |a, b| a + b))
    }
    unsafe fn sub(self, other: Self) -> Self {
        Plain(each(self.0, other.0, |a, b| a - b))
    }
    unsafe fn mul(self, other: Self) -> Self {
        Plain(each(self.0, other.0, |a, b| a * b))
    }
    unsafe fn min(self, other: Self) -> Self {
        Plain(each(self.0, other.0, |a, b| if b < a { b } else { a }))
    }
    unsafe fn max(self, other: Self) -> Self {
        Plain(each(self.0, other.0, |a, b| if a < b { b } else { a }))
    }
    unsafe fn abs(self) -> Self {
        Plain(self.0.map(f32::abs))
    }
    unsafe fn bits(self) -> Self::Int {
        self.0.map(|x| x.to_bits() as i32)
    }
    unsafe fn from_bits(bits: Self::Int) -> Self {
        Plain(bits.map(|x| f32::from_bits(x as u32)))
    }
    unsafe fn from_int(x: Self::Int) -> Self {
        Plain(x.map(|x| x as f32))
    }
    unsafe fn splat_int(x: i32) -> Self::Int {
        [x; LANES]
    }
    unsafe fn load_int(from: &[i32]) -> Self::Int {
        from[..LANES].try_into().expect("sixteen values")
    }
    unsafe fn add_int(a: Self::Int, b: Self::Int) -> Self::Int {
        each(a, b, i32::wrapping_add)
    }
    unsafe fn to_exponent(x: Self::Int) -> Self::Int {
        x.map(|x| x << 23)
    }
    unsafe fn store_u7(x: Self::Int, to: &mut [u8]) {
        to[..LANES].copy_from_slice(&x.map(|x| x.clamp(0, 127) as u8));
    }
    unsafe fn store_i16(x: Self::Int, to: &mut [i16]) {
        to[..LANES].copy_from_slice(&x.map(|x| x as i16));
    }
    unsafe fn store_pairs(a: Self::Int, b: Self::Int, to: &mut [i16]) {
        for (to, (a, b)) in to.chunks_exact_mut(2).zip(a.into_iter().zip(b)) {
            (to[0], to[1]) = (a as i16, b as i16);
        }
    }
}
