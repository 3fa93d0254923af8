//! AVX2, AVX-512 VNNI and AMX, chosen at run time.

use super::scalar;
use super::table::Kernels;

pub(crate) mod amx;
mod avx2;
mod avx512;

pub(super) fn available() -> Vec<&'static Kernels> {
    let mut tables = Vec::new();
    if is_x86_feature_detected!("avx2") {
        tables.push(&avx2::KERNELS);
    }
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
    {
        tables.push(&avx512::KERNELS);
        if amx::features().int8 {
            tables.push(&amx::KERNELS);
        }
    }
    tables
}

pub(super) fn select() -> &'static Kernels {
    let mut tables = available();
    // Whoever is refused the tiles shall not be told that they are in use.
    if amx::features().int8 && !amx::permitted() {
        tables.pop();
    }
    tables.pop().unwrap_or(&scalar::KERNELS)
}
