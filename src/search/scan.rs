//! Sums of products of codes: the inner loops of a search. [`plain`] is the definition; sums of
//! integers are exact in any order, so the SIMD functions have its bits.

/// Codes of a row are padded with zeros to a multiple of this many bytes.
pub(super) const ALIGN: usize = 16;

/// Bits of a query in [`Precision::Binary`](super::Precision): three of magnitude and the sign.
pub(super) const PLANES: usize = 4;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(super) use plain::{dot_i8, dot_signs};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(super) use simd128::{dot_i8, dot_signs};

#[cfg_attr(all(target_arch = "wasm32", target_feature = "simd128"), allow(dead_code))]
mod plain {
    use super::PLANES;

    /// `Σ row[i] · query[i]`. The caller keeps the sum within 31 bits.
    pub fn dot_i8(row: &[i8], query: &[i16]) -> i32 {
        row.iter().zip(query).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
    }

    /// Sum of the query's values where `row` has a one. The query lies in bit planes, 16 bytes of each in
    /// turn: of a value's two's complement the bits of 1, 2, 4 and −8.
    pub fn dot_signs(row: &[i8], planes: &[i8]) -> i32 {
        let (row, _) = row.as_chunks::<16>();
        let (planes, _) = planes.as_chunks::<16>();
        let (planes, _) = planes.as_chunks::<PLANES>();
        let mut sum = 0;
        for (row, planes) in row.iter().zip(planes) {
            let row = u128::from_le_bytes(bytemuck::cast(*row));
            for (plane, weight) in planes.iter().zip([1, 2, 4, -8]) {
                let plane = u128::from_le_bytes(bytemuck::cast(*plane));
                sum += weight * (row & plane).count_ones() as i32;
            }
        }
        sum
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128 {
    use std::arch::wasm32::*;

    use super::PLANES;

    /// [`super::plain::dot_i8`].
    #[inline]
    pub fn dot_i8(row: &[i8], query: &[i16]) -> i32 {
        let (row, _) = row.as_chunks::<16>();
        let (query, _) = query.as_chunks::<16>();
        let (mut low, mut high) = (i32x4_splat(0), i32x4_splat(0));
        for (row, query) in row.iter().zip(query) {
            let row: v128 = bytemuck::cast(*row);
            let query: [v128; 2] = bytemuck::cast(*query);
            low = i32x4_add(low, i32x4_dot_i16x8(i16x8_extend_low_i8x16(row), query[0]));
            high = i32x4_add(high, i32x4_dot_i16x8(i16x8_extend_high_i8x16(row), query[1]));
        }
        sum(i32x4_add(low, high))
    }

    /// [`super::plain::dot_signs`].
    #[inline]
    pub fn dot_signs(row: &[i8], planes: &[i8]) -> i32 {
        let (row, _) = row.as_chunks::<16>();
        let (planes, _) = planes.as_chunks::<16>();
        let (planes, _) = planes.as_chunks::<PLANES>();
        let mut sums = i32x4_splat(0);
        for (row, planes) in row.iter().zip(planes) {
            let row: v128 = bytemuck::cast(*row);
            let count = |plane: usize| i8x16_popcnt(v128_and(row, bytemuck::cast(planes[plane])));
            // A byte counts to 8, so weighted it stays within −64 … 56.
            let ones = i8x16_add(count(0), i8x16_shl(count(1), 1));
            let bytes = i8x16_sub(i8x16_add(ones, i8x16_shl(count(2), 2)), i8x16_shl(count(3), 3));
            let words = i16x8_extadd_pairwise_i8x16(bytes);
            sums = i32x4_add(sums, i32x4_extadd_pairwise_i16x8(words));
        }
        sum(sums)
    }

    #[inline]
    fn sum(x: v128) -> i32 {
        let x = i32x4_add(x, i32x4_shuffle::<2, 3, 0, 1>(x, x));
        i32x4_extract_lane::<0>(i32x4_add(x, i32x4_shuffle::<1, 0, 3, 2>(x, x)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_products() {
        let row: Vec<i8> = (0..64).map(|i| (i * 37 % 255 - 127) as i8).collect();
        let query: Vec<i16> = (0..64).map(|i| (i * 811 % 4095 - 2047) as i16).collect();
        let expected: i32 =
            row.iter().zip(&query).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
        assert_eq!(dot_i8(&row, &query), expected);
        assert_eq!(plain::dot_i8(&row, &query), expected);
        let extreme = (vec![127i8; 4096], vec![2047i16; 4096]);
        assert_eq!(dot_i8(&extreme.0, &extreme.1), 4096 * 127 * 2047);
    }

    #[test]
    fn sums_over_bits() {
        // 256 values of −7 … 7 in planes, and a row of bits.
        let value = |i: usize| (i * 29 % 15) as i8 - 7;
        let bit = |i: usize| i * i % 7 % 2 == 1;
        let mut planes = vec![0i8; 2 * 64];
        let mut row = vec![0i8; 32];
        for i in 0..256 {
            let (chunk, at) = (i / 128, i % 128);
            for plane in 0..PLANES {
                let one = (value(i) >> plane) & 1;
                planes[(chunk * PLANES + plane) * 16 + at / 8] |=
                    (u8::from(one == 1) << (at % 8)) as i8;
            }
            row[i / 8] |= (u8::from(bit(i)) << (i % 8)) as i8;
        }
        let expected: i32 = (0..256).filter(|&i| bit(i)).map(|i| i32::from(value(i))).sum();
        assert_eq!(dot_signs(&row, &planes), expected);
        assert_eq!(plain::dot_signs(&row, &planes), expected);
        let ones = vec![-1i8; 32];
        let all: i32 = (0..256).map(|i| i32::from(value(i))).sum();
        assert_eq!(dot_signs(&ones, &planes), all);
    }
}
