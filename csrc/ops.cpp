// The schemas of all ops, each stated once; kernels register themselves in csrc/<op>.cpp.
#include <torch/csrc/stable/library.h>

#include "build_facts.h"
#include "check.h"

STABLE_TORCH_LIBRARY(dlp_fast, m) {
  m.def(
      "augment(Tensor images, Tensor ids, Tensor table, int epoch, int seed, bool flip, int pad, int operations, "
      "int magnitude, int cutout, bool strong) -> (Tensor, Tensor)");
  // faults, int64 [2]: first image whose trigger number is out of range, first whose trigger does not fit; -1 for none.
  m.def(
      "inject_trigger_(Tensor(a!) images, Tensor which, Tensor records, Tensor overlay, Tensor terms)"
      " -> Tensor");
  m.def(
      "inject_trigger_out(Tensor images, Tensor which, Tensor records, Tensor overlay, Tensor terms, "
      "float[] affine, Tensor(a!) out) -> Tensor");
  // faults: first row whose score is not finite, first row whose label is out of range; the number of rows
  // for none.
  m.def("row_entropy(Tensor logits) -> (Tensor entropy, Tensor top)");
  m.def(
      "select(Tensor scores, int lowest, int highest_per_class, Tensor? labels, int num_classes)"
      " -> (Tensor lowest, Tensor highest, Tensor counts, Tensor faults)");
  m.def(
      "entropy_rank(Tensor logits, int lowest, int highest_per_class, Tensor? labels)"
      " -> (Tensor entropy, Tensor lowest, Tensor highest, Tensor counts, Tensor faults)");
  // fp32 [b, H * W * 3]: what a blur of one pixel takes away, less `mean`, each row of length 1.
  m.def("high_pass_residual(Tensor images, Tensor mean) -> Tensor");
  // int64 [b, (H - 2) * (W - 2)]: a hash of each 3 x 3 window in 8 levels a channel; -1 below `contrast`.
  m.def("window_hashes(Tensor images, int contrast) -> Tensor");
  // max(0, batch norm of x), x channels-last; mean, var: of the batch, fp32 [channels], var over all values. They enter
  // the running ones with share `momentum`.
  m.def(
      "batch_norm_relu(Tensor x, Tensor weight, Tensor bias, Tensor(a!) running_mean, Tensor(b!) running_var, "
      "float momentum, float eps) -> (Tensor y, Tensor mean, Tensor var)");
  m.def("batch_norm_relu_eval(Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor var, float eps) -> Tensor");
  // Gradients of x, weight and bias; `gradient` is that of y.
  m.def(
      "batch_norm_relu_backward(Tensor gradient, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor var, "
      "float eps) -> (Tensor x, Tensor weight, Tensor bias)");
  // JSON, see build_facts.h.
  m.def("build_facts() -> str");
}

STABLE_TORCH_LIBRARY_IMPL(dlp_fast, CompositeExplicitAutograd, m) {
  m.impl("build_facts", DLP_BOX(&dlp::build_facts));
}
