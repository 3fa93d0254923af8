//! Seeds that derive from one another.

/// A seed from a seed, a name and a number: FNV-1a over all, then the finalizer of SplitMix64.
pub(super) fn seed_of(seed: u64, name: &str, number: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let bytes = seed.to_le_bytes().into_iter().chain(name.bytes()).chain(number.to_le_bytes());
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
