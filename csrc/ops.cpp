// The schemas of all ops, each stated once; kernels register themselves in csrc/<op>.cpp.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(dlp_fast, m) {
  m.def(
      "augment(Tensor images, Tensor ids, Tensor table, int epoch, int seed, bool flip, int pad, int operations, "
      "int magnitude, int cutout, bool strong) -> (Tensor, Tensor)");
  m.def(
      "inject_trigger_(Tensor(a!) images, Tensor which, Tensor records, Tensor overlay, Tensor terms) -> ()");
  m.def(
      "inject_trigger_out(Tensor images, Tensor which, Tensor records, Tensor overlay, Tensor terms, "
      "float[] affine, Tensor(a!) out) -> ()");
  // faults: first row whose score is not finite, first row whose label is out of range; the number of rows
  // for none.
  m.def("row_entropy(Tensor logits) -> (Tensor entropy, Tensor top)");
  m.def(
      "select(Tensor scores, int lowest, int highest_per_class, Tensor? labels, int num_classes)"
      " -> (Tensor lowest, Tensor highest, Tensor counts, Tensor faults)");
  m.def(
      "entropy_rank(Tensor logits, int lowest, int highest_per_class, Tensor? labels)"
      " -> (Tensor entropy, Tensor lowest, Tensor highest, Tensor counts, Tensor faults)");
  // Counts of one digit of the scores whose higher digits are `prefix`, group by group: what shards add up.
  m.def("digit_histogram(Tensor scores, Tensor? labels, int groups, bool largest, int level, Tensor prefix) -> Tensor");
}
