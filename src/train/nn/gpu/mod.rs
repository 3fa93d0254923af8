//! Kernels of our own for NVIDIA GPUs (`kernels.cu`), compiled when they are first used: what candle composes
//! of many small ones, with their gradients.

use std::sync::OnceLock;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape,
    Storage, Tensor, bail,
};

use super::ops::dropout::Mask;
use crate::quant::ACTIVATION_MAX;
use crate::train::optim::update::Update;

const SOURCE: &str = include_str!("kernels.cu");
const THREADS: u32 = 256;
/// Rows of which one thread sums a column.
const SUMMED_ROWS: usize = 64;

fn function(device: &CudaDevice, name: &str) -> Result<CudaFunction> {
    static PTX: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compiled = PTX.get_or_init(|| match compile_ptx(SOURCE) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(error) => Err(format!("the GPU's kernels do not compile: {error}")),
    });
    match compiled {
        Ok(ptx) => Ok(device.get_or_load_custom_func(name, "munjang", ptx)?.into_cuda_function()),
        Err(error) => bail!("{error}"),
    }
}

fn launch(grid: (u32, u32)) -> LaunchConfig {
    LaunchConfig { grid_dim: (grid.0, grid.1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

/// A scalar argument of a kernel.
#[derive(Clone, Copy)]
enum Number {
    U(u32),
    F(f32),
}

/// A kernel without a gradient: reads its inputs (contiguous, f32) and writes every value of a new tensor.
#[derive(Clone)]
struct Call {
    kernel: &'static str,
    /// What stands after inputs and output.
    numbers: Vec<Number>,
    blocks: (u32, u32),
    out: Shape,
}

impl Call {
    /// A warp for each row.
    fn by_rows(kernel: &'static str, shape: &Shape, numbers: &[Number]) -> Self {
        let (rows, cols) = rows_and_cols(shape);
        let numbers = [&[Number::U(rows as u32), Number::U(cols as u32)], numbers].concat();
        let blocks = ((rows as u32).div_ceil(THREADS / 32), 1);
        Call { kernel, numbers, blocks, out: shape.clone() }
    }

    /// A thread for each value.
    fn by_values(kernel: &'static str, shape: &Shape, numbers: &[Number]) -> Self {
        let n = shape.elem_count() as u32;
        let numbers = [&[Number::U(n)], numbers].concat();
        Call { kernel, numbers, blocks: (n.div_ceil(THREADS), 1), out: shape.clone() }
    }

    /// A thread for each column of some rows; `each` values a column.
    fn by_columns(kernel: &'static str, shape: &Shape, each: usize) -> Self {
        let (rows, cols) = rows_and_cols(shape);
        let parts = rows.div_ceil(SUMMED_ROWS);
        let numbers = [rows, cols, SUMMED_ROWS].map(|number| Number::U(number as u32)).to_vec();
        let blocks = ((cols as u32).div_ceil(THREADS), parts as u32);
        Call { kernel, numbers, blocks, out: Shape::from((parts, each * cols)) }
    }

    fn run(&self, inputs: &[(&CudaStorage, &Layout)]) -> Result<(CudaStorage, Shape)> {
        if self.out.elem_count() > i32::MAX as usize {
            bail!("{}: {} values are too many", self.kernel, self.out.elem_count());
        }
        let device = inputs[0].0.device().clone();
        let mut views = Vec::with_capacity(inputs.len());
        for (storage, layout) in inputs {
            let Some((start, end)) = layout.contiguous_offsets() else {
                bail!("{}: an input is not contiguous", self.kernel);
            };
            views.push(storage.as_cuda_slice::<f32>()?.slice(start..end));
        }
        let kernel = function(&device, self.kernel)?;
        // SAFETY: the kernel writes every value before anything reads it.
        let out = unsafe { device.alloc::<f32>(self.out.elem_count()) }?;
        let stream = device.cuda_stream();
        let mut call = stream.launch_builder(&kernel);
        for view in &views {
            call.arg(view);
        }
        call.arg(&out);
        for number in &self.numbers {
            match number {
                Number::U(number) => call.arg(number),
                Number::F(number) => call.arg(number),
            };
        }
        // SAFETY: the arguments are those of the kernel, in its order; the functions below give it inputs
        // of the sizes that it expects.
        unsafe { call.launch(launch(self.blocks)) }.w()?;
        drop(call);
        Ok((CudaStorage::wrap_cuda_slice(out, device), self.out.clone()))
    }
}

fn rows_and_cols(shape: &Shape) -> (usize, usize) {
    let cols = shape.dims().last().copied().unwrap_or(1);
    (shape.elem_count() / cols.max(1), cols)
}

/// What all operations of ours have in common as candle's: a name, no way on the CPU, and on a GPU the call
/// that `call` gives for the inputs' shapes.
macro_rules! on_a_gpu {
    ($($input:ident $layout:ident),*) => {
        fn name(&self) -> &'static str {
            self.kernel()
        }

        fn cpu_fwd(
            &self,
            $($input: &CpuStorage, $layout: &Layout),*
        ) -> Result<(CpuStorage, Shape)> {
            $(let _ = ($input, $layout);)*
            bail!("{} is for GPUs", self.kernel())
        }

        fn cuda_fwd(
            &self,
            $($input: &CudaStorage, $layout: &Layout),*
        ) -> Result<(CudaStorage, Shape)> {
            self.call(&[$($layout.shape()),*]).run(&[$(($input, $layout)),*])
        }
    };
}

impl Call {
    fn kernel(&self) -> &'static str {
        self.kernel
    }

    fn call(&self, _: &[&Shape]) -> &Self {
        self
    }
}

impl CustomOp1 for Call {
    on_a_gpu!(a a_layout);
}

impl CustomOp2 for Call {
    on_a_gpu!(a a_layout, b b_layout);
}

impl CustomOp3 for Call {
    on_a_gpu!(a a_layout, b b_layout, c c_layout);
}

struct LayerNorm {
    eps: f32,
}

impl LayerNorm {
    fn kernel(&self) -> &'static str {
        "layer_norm"
    }

    fn call(&self, shapes: &[&Shape]) -> Call {
        Call::by_rows("layer_norm", shapes[0], &[Number::F(self.eps)])
    }
}

impl CustomOp3 for LayerNorm {
    on_a_gpu!(x x_layout, weight weight_layout, bias bias_layout);

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rows, cols) = rows_and_cols(x.shape());
        let grad = grad.contiguous()?;
        let mut call = Call::by_rows("layer_norm_grad", x.shape(), &[Number::F(self.eps)]);
        call.out = Shape::from(rows * cols + 2 * rows);
        let both = x.apply_op3_no_bwd(weight, &grad, &call)?;
        let of_x = both.narrow(0, 0, rows * cols)?.reshape(x.shape())?;
        let kept = both.narrow(0, rows * cols, 2 * rows)?;
        let call = Call::by_columns("layer_norm_sums", x.shape(), 2);
        let sums = x.apply_op3_no_bwd(&grad, &kept, &call)?.sum(0)?;
        Ok((Some(of_x), Some(sums.narrow(0, 0, cols)?), Some(sums.narrow(0, cols, cols)?)))
    }
}

/// Layer normalization of the rows of `x` (contiguous), with gradients.
pub(in crate::train) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f32,
) -> Result<Tensor> {
    x.apply_op3(weight, bias, LayerNorm { eps })
}

fn column_sums(x: &Tensor) -> Result<Tensor> {
    let call = Call::by_columns("column_sums", x.shape(), 1);
    x.contiguous()?.apply_op1_no_bwd(&call)?.sum(0)
}

struct AddBias {
    gelu: bool,
}

impl AddBias {
    fn kernel(&self) -> &'static str {
        if self.gelu { "add_bias_gelu" } else { "add_bias" }
    }

    fn call(&self, shapes: &[&Shape]) -> Call {
        let cols = Number::U(shapes[1].elem_count() as u32);
        Call::by_values(self.kernel(), shapes[0], &[cols])
    }
}

impl CustomOp2 for AddBias {
    on_a_gpu!(x x_layout, bias bias_layout);

    fn bwd(
        &self,
        x: &Tensor,
        bias: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut grad = grad.contiguous()?;
        if self.gelu {
            let cols = Number::U(bias.elem_count() as u32);
            let call = Call::by_values("add_bias_gelu_grad", x.shape(), &[cols]);
            grad = x.apply_op3_no_bwd(bias, &grad, &call)?;
        }
        let sums = column_sums(&grad)?;
        Ok((Some(grad), Some(sums)))
    }
}

/// `x + bias` (one value a column), with gradients; the GELU of it if `gelu` says so.
pub(in crate::train) fn add_bias(x: &Tensor, bias: &Tensor, gelu: bool) -> Result<Tensor> {
    x.apply_op2(bias, AddBias { gelu })
}

struct Softmax {
    scale: f32,
}

impl Softmax {
    fn kernel(&self) -> &'static str {
        "softmax"
    }

    fn call(&self, shapes: &[&Shape]) -> Call {
        let (rows, cols) = rows_and_cols(shapes[0]);
        let rows_each = rows / (shapes[1].elem_count() / cols);
        let numbers = [Number::U(rows_each as u32), Number::F(self.scale)];
        Call::by_rows("softmax", shapes[0], &numbers)
    }
}

impl CustomOp2 for Softmax {
    on_a_gpu!(x x_layout, hide hide_layout);

    fn bwd(
        &self,
        x: &Tensor,
        _: &Tensor,
        p: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let call = Call::by_rows("softmax_grad", x.shape(), &[Number::F(self.scale)]);
        Ok((Some(p.apply_op2_no_bwd(&grad.contiguous()?, &call)?), None))
    }
}

/// Softmax over the last dimension of `scale · x + hide`, with the gradient of `x` (contiguous). The first
/// dimension of both counts sentences; `hide` has a row for each, as long as those of `x`.
pub(in crate::train) fn softmax(x: &Tensor, hide: &Tensor, scale: f32) -> Result<Tensor> {
    x.apply_op2(hide, Softmax { scale })
}

#[derive(Clone)]
struct Dropout(Mask);

impl Dropout {
    fn kernel(&self) -> &'static str {
        "dropout"
    }

    fn call(&self, shapes: &[&Shape]) -> Call {
        let (key, threshold, scale) = self.0.numbers();
        let numbers = [Number::U(key), Number::U(threshold), Number::F(scale)];
        Call::by_values("dropout", shapes[0], &numbers)
    }
}

impl CustomOp1 for Dropout {
    on_a_gpu!(x layout);

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(self)?))
    }
}

/// What the mask leaves of `x` (contiguous), with the gradient.
pub(in crate::train) fn dropout(x: &Tensor, mask: Mask) -> Result<Tensor> {
    x.apply_op1(Dropout(mask))
}

struct Rounded {
    kernel: &'static str,
    limit: f32,
}

impl Rounded {
    fn kernel(&self) -> &'static str {
        self.kernel
    }

    fn call(&self, shapes: &[&Shape]) -> Call {
        Call::by_rows(self.kernel, shapes[0], &[Number::F(self.limit)])
    }
}

impl CustomOp1 for Rounded {
    on_a_gpu!(x layout);

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}

/// Rows of `x` (contiguous) rounded to the run time's activations; the gradient passes through.
pub(in crate::train) fn round_activations(x: &Tensor) -> Result<Tensor> {
    x.apply_op1(Rounded { kernel: "round_activations", limit: f32::from(ACTIVATION_MAX) })
}

/// Rows of `x` (contiguous) rounded to −`limit` … `limit`; the gradient passes through.
pub(in crate::train) fn round_symmetric(x: &Tensor, limit: i8) -> Result<Tensor> {
    x.apply_op1(Rounded { kernel: "round_symmetric", limit: f32::from(limit) })
}

/// The f32 values of a contiguous tensor on a GPU, as `$name`; its storage stays borrowed.
macro_rules! values {
    ($name:ident, $tensor:expr) => {
        let (storage, layout) = $tensor.storage_and_layout();
        let (Storage::Cuda(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets())
        else {
            bail!("expected a contiguous tensor on a GPU");
        };
        let $name = storage.as_cuda_slice::<f32>()?.slice(start..end);
    };
}

/// Moves `weights` and both moments in place. All are contiguous and of one size.
pub(in crate::train) fn adamw(
    weights: &Tensor,
    first: &Tensor,
    second: &Tensor,
    gradient: &Tensor,
    update: Update,
) -> Result<()> {
    let count = weights.elem_count();
    if [first, second, gradient].iter().any(|tensor| tensor.elem_count() != count) {
        bail!("weights, moments and gradient differ in size");
    }
    let n = count as u32;
    let device = weights.device().as_cuda_device()?;
    let kernel = function(device, "adamw")?;
    values!(weights, weights);
    values!(first, first);
    values!(second, second);
    values!(gradient, gradient);
    let stream = device.cuda_stream();
    let mut call = stream.launch_builder(&kernel);
    call.arg(&weights).arg(&first).arg(&second).arg(&gradient).arg(&n);
    call.arg(&update.grad_scale).arg(&update.beta1).arg(&update.beta2);
    call.arg(&update.step_size).arg(&update.second_scale).arg(&update.eps).arg(&update.shrink);
    // SAFETY: the arguments are those of the kernel; each thread touches its own place below n, which
    // all four slices have. Weights and moments are written although candle lends them for reading:
    // kernels of one stream run one after another, and nothing else reads them in the meantime.
    unsafe { call.launch(launch((n.div_ceil(THREADS), 1))) }.w()?;
    Ok(())
}

/// A sum of squares that stays on the GPU until it is asked for.
pub(in crate::train) struct Squares {
    total: Tensor,
}

impl Squares {
    pub(in crate::train) fn new(device: &Device) -> Result<Self> {
        Ok(Squares { total: Tensor::zeros(1, DType::F64, device)? })
    }

    pub(in crate::train) fn add(&mut self, values: &Tensor) -> Result<()> {
        let device = values.device().as_cuda_device()?;
        let values = values.contiguous()?;
        let n = values.elem_count() as u32;
        let kernel = function(device, "add_squares")?;
        values!(values, values);
        let (storage, _) = self.total.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            bail!("expected a tensor on a GPU");
        };
        let total = storage.as_cuda_slice::<f64>()?;
        let stream = device.cuda_stream();
        let mut call = stream.launch_builder(&kernel);
        call.arg(&values).arg(total).arg(&n);
        // SAFETY: the arguments are those of the kernel, which reads n values and adds to one; nobody
        // else has `total`.
        unsafe { call.launch(launch((n.div_ceil(THREADS).clamp(1, 512), 1))) }.w()?;
        Ok(())
    }

    pub(in crate::train) fn total(&self) -> Result<f64> {
        Ok(self.total.to_vec1::<f64>()?[0])
    }
}
