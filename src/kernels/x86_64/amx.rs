//! Intel AMX: eight registers ("tiles") of 16 rows × 64 bytes, and products of them that take 16
//! cycles for 16 × 16 sums of 64 bytes of depth. Written as assembly, because the compiler's own
//! functions for it are not stable.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::LazyLock;

use super::avx512;
use crate::kernels::args::QuantizedRows;
use crate::kernels::lanes::LANES;
use crate::kernels::packed_matrix::PackedMatrix;
use crate::kernels::table::Kernels;
use crate::kernels::tiles::check_gemm;

/// Rows of a tile.
pub(crate) const TILE_ROWS: usize = 16;
/// Bytes of a tile's row: depth of one multiplication.
pub(crate) const TILE_BYTES: usize = 64;

/// Which products the CPU has and the system would let this process use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Features {
    /// Bytes, summed in 32-bit integers.
    pub int8: bool,
    /// bfloat16, summed in 32-bit floats.
    #[cfg_attr(not(feature = "train"), allow(dead_code, reason = "for training only"))]
    pub bf16: bool,
}

/// The environment variable that keeps this process from asking for AMX when it is `0`.
const SWITCH: &str = "MUNJANG_AMX";

/// What is there, found out once, without asking the system for it.
pub(crate) fn features() -> Features {
    static FEATURES: LazyLock<Features> = LazyLock::new(detect);
    *FEATURES
}

/// Whether this process may use what [`features`] found; asks the system, once. From then on Linux
/// gives every thread of the process larger signal frames: an alternative signal stack that is too
/// small for them is refused.
pub(crate) fn permitted() -> bool {
    static PERMITTED: LazyLock<bool> = LazyLock::new(|| {
        let Features { int8, bf16 } = features();
        (int8 || bf16) && request_permission()
    });
    *PERMITTED
}

fn detect() -> Features {
    const OSXSAVE: u32 = 1 << 27;
    const TILE_STATE: u64 = 3 << 17;
    let (bf16, tile, int8) = (1 << 22, 1 << 24, 1 << 25);
    // Older compilers call this function unsafe.
    #[allow(unused_unsafe)]
    // SAFETY: every CPU with AVX-512, which is asked first, has the instruction.
    let cpuid = |leaf: u32| unsafe { __cpuid_count(leaf, 0) };
    // Leaves that the CPU does not have are not asked; AVX-512 is needed beside the tiles.
    if std::env::var_os(SWITCH).is_some_and(|value| value == "0")
        || !is_x86_feature_detected!("avx512f")
        || cpuid(0).eax < 7
        || cpuid(1).ecx & OSXSAVE == 0
    {
        return Features::default();
    }
    // SAFETY: OSXSAVE says that the instruction is there.
    let state = unsafe { state_of_system() };
    let has = cpuid(7).edx;
    if state & TILE_STATE != TILE_STATE || has & tile == 0 || !system_has_tiles() {
        return Features::default();
    }
    Features { int8: has & int8 != 0, bf16: has & bf16 != 0 }
}

/// Which registers the system saves.
///
/// # Safety
/// The CPU must have `xgetbv`.
#[target_feature(enable = "xsave")]
unsafe fn state_of_system() -> u64 {
    // SAFETY: the caller's.
    unsafe { _xgetbv(0) }
}

/// The number of the tiles' data among the parts of a process's state.
#[cfg(target_os = "linux")]
const TILE_DATA: u64 = 18;

/// `arch_prctl` of Linux.
///
/// # Safety
/// `argument` must be what `code` asks for; an address must be valid for what the system writes there.
#[cfg(target_os = "linux")]
unsafe fn arch_prctl(code: u64, argument: u64) -> i64 {
    const ARCH_PRCTL: i64 = 158;
    let result: i64;
    // SAFETY: the caller's; `syscall` itself overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") code,
            in("rsi") argument,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Whether the system has the tiles to give.
#[cfg(target_os = "linux")]
fn system_has_tiles() -> bool {
    const ARCH_GET_XCOMP_SUPP: u64 = 0x1021;
    let mut parts = 0u64;
    // SAFETY: this code wants the address of 64 bits to write to.
    let result = unsafe { arch_prctl(ARCH_GET_XCOMP_SUPP, (&raw mut parts) as u64) };
    result == 0 && parts >> TILE_DATA & 1 == 1
}

/// Linux keeps the tiles from a process until it asks for them, once for all its threads.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    // SAFETY: this code wants a number, and the system writes nothing.
    unsafe { arch_prctl(ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_has_tiles() -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn request_permission() -> bool {
    false
}

/// As with AVX-512, but for the product of 8-bit matrices, unless the system refuses the tiles. Handed
/// out where [`Features::int8`] and what `avx512` needs were found.
pub(super) static KERNELS: Kernels = Kernels {
    name: "amx",
    gemm: |a, w, out| {
        // Depth in whole multiplications only.
        if a.scales.is_empty() || !w.cols().is_multiple_of(TILE_BYTES) || !permitted() {
            (avx512::KERNELS.gemm)(a, w, out);
        } else {
            // SAFETY: by where the table is handed out, and what was asked.
            unsafe { gemm(a, w, out) }
        }
    },
    ..avx512::KERNELS
};

/// Sums of up to 32 rows times 32 channels, in the order of [`Block::sums`].
#[repr(align(64))]
struct Sums([[[i32; LANES]; TILE_ROWS]; 4]);

/// Every row against every panel, in blocks of 32 rows × 2 panels.
///
/// # Safety
/// The CPU must have the features, and AMX for bytes, which must be [`permitted`]; `w.cols()` must be a
/// multiple of 64, and there must be a row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2")]
unsafe fn gemm(a: QuantizedRows<'_>, w: &PackedMatrix, out: &mut [f32]) {
    check_gemm(&a, w, out);
    let (count, channels, depth) = (a.scales.len(), w.rows(), w.cols());
    let (first, second) = match count {
        0..=TILE_ROWS => (count, 1),
        _ => (TILE_ROWS, (count - TILE_ROWS).min(TILE_ROWS)),
    };
    let mut sums = Sums([[[0; LANES]; TILE_ROWS]; 4]);
    // SAFETY: the caller's.
    let _tiles = unsafe { Tiles::new(first, second) };
    for channel in (0..channels).step_by(2 * LANES) {
        let two_panels = channel + LANES < channels;
        let panel = |index: usize| w.weights()[(channel + index * LANES) * depth..].as_ptr().cast();
        let columns = [panel(0), panel(usize::from(two_panels))];
        let mut row = 0;
        while row < count {
            // Rows at the end are computed a second time rather than fewer at a time, where there
            // are enough; both times give the same.
            let (begin, two) = match count - row {
                left if left >= 2 * TILE_ROWS => (row, true),
                left if left > TILE_ROWS => (count.saturating_sub(2 * TILE_ROWS), true),
                _ => (count.saturating_sub(TILE_ROWS), false),
            };
            let rows = if two { first + second } else { first };
            let at = |row: usize| a.data[row * a.stride..].as_ptr();
            let block = Block {
                rows: [at(begin), at(begin + if two { first } else { 0 })],
                row_stride: a.stride,
                row_step: TILE_BYTES,
                columns,
                column_stride: TILE_BYTES,
                multiplications: depth / TILE_BYTES,
                sums: (&raw mut sums).cast(),
            };
            // SAFETY: the rows were checked, and panels are whole: all are there to the last multiplication.
            unsafe {
                match (two, two_panels) {
                    (true, true) => multiply_int8::<true, true>(block),
                    (true, false) => multiply_int8::<true, false>(block),
                    (false, true) => multiply_int8::<false, true>(block),
                    (false, false) => multiply_int8::<false, false>(block),
                }
            }
            for panel in 0..1 + usize::from(two_panels) {
                let channel = channel + panel * LANES;
                // SAFETY: 16 channels from `channel` on are there, and, as was checked, their place in
                // each of these rows of `out`.
                unsafe {
                    let scales = _mm512_loadu_ps(w.scales()[channel..].as_ptr());
                    let bias = _mm512_loadu_ps(w.bias()[channel..].as_ptr());
                    let channel_sums = _mm512_loadu_si512(w.sums()[channel..].as_ptr().cast());
                    for r in 0..rows {
                        let (tile, line) = if r < first { (0, r) } else { (1, r - first) };
                        let sums = &sums.0[2 * panel + tile][line];
                        let scale = &a.scales[begin + r];
                        let zero =
                            _mm512_mullo_epi32(channel_sums, _mm512_set1_epi32(scale.zero_point));
                        let sum = _mm512_sub_epi32(_mm512_loadu_si512(sums.as_ptr().cast()), zero);
                        let scale = _mm512_mul_ps(_mm512_set1_ps(scale.scale), scales);
                        let y = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale), bias);
                        let out = out.as_mut_ptr().add((begin + r) * channels + channel);
                        _mm512_storeu_ps(out, y);
                    }
                }
            }
            row = begin + rows;
        }
    }
}

/// The tiles of this thread, shaped and in use while it lives.
#[derive(Debug)]
pub(crate) struct Tiles(());

#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// Tiles 0 to 3 hold sums and 4 and 5 the first factor, of `first` rows (0, 2, 4) and `second`
    /// rows (1, 3, 5): at most 16, at least 1. Tiles 6 and 7 hold the second factor.
    ///
    /// # Safety
    /// [`features`] must have said that a product is there, and [`permitted`] that it may be used. One per
    /// thread at a time.
    pub(crate) unsafe fn new(first: usize, second: usize) -> Self {
        let (first, second) = (first as u8, second as u8);
        let mut config = TileConfig {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            bytes: [0; 16],
            rows: [0; 16],
        };
        config.bytes[..8].fill(TILE_BYTES as u16);
        config.rows[..8].copy_from_slice(&[first, second, first, second, first, second, 16, 16]);
        // SAFETY: the tiles are there, and the configuration is one that palette 1 allows.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly));
        }
        Tiles(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: whoever made it had the tiles.
        unsafe { asm!("tilerelease", options(nostack, nomem)) }
    }
}

/// Both factors of a block of sums, and where the sums go: rows of 16 values of 32 bits, of the
/// first rows times the first 16 columns, of the second rows times these, then of both times the
/// second columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    /// Rows of the first factor: the first and the second ones.
    pub rows: [*const u8; 2],
    /// Bytes from row to row.
    pub row_stride: usize,
    /// Bytes from a row's 64 bytes of depth to its next 64.
    pub row_step: usize,
    /// 16 columns of the second factor each, `[depth / 64 bytes][16][64 bytes]`.
    pub columns: [*const u8; 2],
    /// Bytes from one of these 64 to the next: 64, or 128 where both columns lie side by side.
    pub column_stride: usize,
    /// Multiplications in depth: `depth / 64 bytes`, at least 1.
    pub multiplications: usize,
    /// 4 × 16 × 64 bytes.
    pub sums: *mut u8,
}

/// The loop over depth, of 1 or 2 tiles of rows × 1 or 2 of columns.
macro_rules! block {
    ($name:ident, $dot:literal, $doc:literal) => {
        #[doc = $doc]
        ///
        /// # Safety
        /// [`Tiles`] must be shaped for the rows, the pointers be readable for all of these rows
        /// and multiplications (where `TWO_ROWS` or `TWO_COLUMNS` is false, the second ones are not used),
        /// and `sums` writable.
        #[inline]
        pub(crate) unsafe fn $name<const TWO_ROWS: bool, const TWO_COLUMNS: bool>(block: Block) {
            macro_rules! run {
                ($zero:expr, $load:expr, $multiply:expr, $store:expr) => {
                    asm!(
                        $zero,
                        "2:",
                        $load,
                        $multiply,
                        "add {a0}, {a_step}",
                        "add {a1}, {a_step}",
                        "add {b0}, {b_step}",
                        "add {b1}, {b_step}",
                        "dec {count}",
                        "jnz 2b",
                        $store,
                        a0 = inout(reg) block.rows[0] => _,
                        a1 = inout(reg) block.rows[1] => _,
                        b0 = inout(reg) block.columns[0] => _,
                        b1 = inout(reg) block.columns[1] => _,
                        a_stride = in(reg) block.row_stride,
                        a_step = in(reg) block.row_step,
                        b_stride = in(reg) block.column_stride,
                        b_step = in(reg) block.column_stride * TILE_ROWS,
                        count = inout(reg) block.multiplications => _,
                        sums = in(reg) block.sums,
                        line = in(reg) TILE_BYTES,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    )
                };
            }
            // SAFETY: the caller's.
            unsafe {
                match (TWO_ROWS, TWO_COLUMNS) {
                    (true, true) => run!(
                        "tilezero tmm0\ntilezero tmm1\ntilezero tmm2\ntilezero tmm3",
                        "tileloadd tmm4, [{a0} + {a_stride}]\ntileloadd tmm6, [{b0} + {b_stride}]\n\
                         tileloadd tmm5, [{a1} + {a_stride}]\ntileloadd tmm7, [{b1} + {b_stride}]",
                        concat!(
                            $dot, " tmm0, tmm4, tmm6\n", $dot, " tmm1, tmm5, tmm6\n",
                            $dot, " tmm2, tmm4, tmm7\n", $dot, " tmm3, tmm5, tmm7"
                        ),
                        "tilestored [{sums} + {line}], tmm0\n\
                         tilestored [{sums} + {line} + 1024], tmm1\n\
                         tilestored [{sums} + {line} + 2048], tmm2\n\
                         tilestored [{sums} + {line} + 3072], tmm3"
                    ),
                    (true, false) => run!(
                        "tilezero tmm0\ntilezero tmm1",
                        "tileloadd tmm4, [{a0} + {a_stride}]\ntileloadd tmm6, [{b0} + {b_stride}]\n\
                         tileloadd tmm5, [{a1} + {a_stride}]",
                        concat!($dot, " tmm0, tmm4, tmm6\n", $dot, " tmm1, tmm5, tmm6"),
                        "tilestored [{sums} + {line}], tmm0\n\
                         tilestored [{sums} + {line} + 1024], tmm1"
                    ),
                    (false, true) => run!(
                        "tilezero tmm0\ntilezero tmm2",
                        "tileloadd tmm4, [{a0} + {a_stride}]\ntileloadd tmm6, [{b0} + {b_stride}]\n\
                         tileloadd tmm7, [{b1} + {b_stride}]",
                        concat!($dot, " tmm0, tmm4, tmm6\n", $dot, " tmm2, tmm4, tmm7"),
                        "tilestored [{sums} + {line}], tmm0\n\
                         tilestored [{sums} + {line} + 2048], tmm2"
                    ),
                    (false, false) => run!(
                        "tilezero tmm0",
                        "tileloadd tmm4, [{a0} + {a_stride}]\ntileloadd tmm6, [{b0} + {b_stride}]",
                        concat!($dot, " tmm0, tmm4, tmm6"),
                        "tilestored [{sums} + {line}], tmm0"
                    ),
                }
            }
        }
    };
}

block!(multiply_int8, "tdpbusd", "Unsigned bytes times signed ones.");
#[cfg(feature = "train")]
block!(multiply_bf16, "tdpbf16ps", "Pairs of bfloat16.");
