// The CPU kernels on several threads at once, without torch, for ThreadSanitizer: torch's own threads (OpenMP) are not
// built with it, and what they guard would be reported as races. Each kernel is given its rows in parts, as the ops do,
// and what comes out must be what one thread gives. With the word `race` two threads write one number, which must be
// reported.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/augment.h"
#include "cpu/batch_norm_relu.h"
#include "cpu/entropy_rank.h"
#include "cpu/residual_scan.h"
#include "inject_trigger.h"
#include "philox.h"

namespace {

constexpr int64_t kThreads = 4;

uint32_t noise(int64_t i) { return dlp::philox4x32({{static_cast<uint32_t>(i), 0, 0, 0}}, 7, 9).word[0]; }

// body(begin, end) of 0..count-1 on `threads` threads, or on this one.
void in_parts(int64_t count, int64_t threads, const std::function<void(int64_t, int64_t)>& body) {
  if (threads == 1) return body(0, count);
  std::vector<std::thread> at_work;
  for (int64_t t = 0; t < threads; ++t) {
    at_work.emplace_back(body, count * t / threads, count * (t + 1) / threads);
  }
  for (std::thread& one : at_work) one.join();
}

dlp::cpu::Parallel parallel(int64_t threads) {
  return [threads](int64_t count, const std::function<void(int64_t)>& body) {
    in_parts(count, std::min(threads, std::max<int64_t>(count, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) body(i);
    });
  };
}

template <typename Value>
void append(std::vector<uint8_t>& to, const std::vector<Value>& values) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  to.insert(to.end(), bytes, bytes + values.size() * sizeof(Value));
}

std::vector<uint8_t> bytes_of_noise(int64_t count) {
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(noise(i));
  return bytes;
}

std::vector<uint8_t> row_entropy(int64_t threads) {
  constexpr int64_t kRows = 999, kClasses = 37;
  std::vector<float> logits(kRows * kClasses), entropy(kRows);
  std::vector<int32_t> top(kRows);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(noise(static_cast<int64_t>(i)) % 999) / 99;
  const dlp::cpu::Logits what{logits.data(), dlp::cpu::Element::kFloat, kRows, kClasses, kClasses};
  in_parts(kRows, threads, [&](int64_t begin, int64_t end) {
    dlp::cpu::rank_kernels().row_entropy(what, begin, end, entropy.data(), top.data());
  });
  std::vector<uint8_t> out;
  append(out, entropy);
  append(out, top);
  return out;
}

// `values`: how many different scores there are; few of them are ties.
std::vector<uint8_t> select(int64_t threads, int64_t groups, int64_t count, uint32_t values) {
  constexpr int64_t kRows = 100'000;
  std::vector<float> scores(kRows);
  std::vector<int64_t> labels(kRows), chosen(static_cast<size_t>(std::min(kRows, count * groups)), -1);
  std::vector<int64_t> counts(static_cast<size_t>(groups));
  for (int64_t i = 0; i < kRows; ++i) {
    scores[static_cast<size_t>(i)] = static_cast<float>(noise(i) % values);
    labels[static_cast<size_t>(i)] = noise(i + kRows) % groups;
  }
  dlp::cpu::Labels of;
  if (groups > 1) of = {labels.data(), dlp::cpu::LabelType::kInt64};
  const dlp::cpu::Faults found = dlp::cpu::select({scores.data(), kRows, of, groups, groups > 1}, count, threads,
                                                  parallel(threads), chosen.data(), counts.data());
  std::vector<uint8_t> out;
  append(out, chosen);
  append(out, counts);
  append(out, std::vector<int64_t>{found.score, found.label});
  return out;
}

std::vector<uint8_t> augment(int64_t threads) {
  constexpr int64_t kImages = 16, kSide = 33;
  const std::vector<uint8_t> images = bytes_of_noise(kImages * kSide * kSide * 3);
  std::vector<int64_t> ids(kImages);
  for (int64_t i = 0; i < kImages; ++i) ids[static_cast<size_t>(i)] = i * 1'000'003;
  std::vector<uint32_t> table(3 * 256), weak(images.size()), strong(images.size());
  for (size_t i = 0; i < table.size(); ++i) table[i] = noise(static_cast<int64_t>(i));
  const dlp::augment::Settings settings{5, 1, kSide, kSide, true, 4, 3, 10, 16};
  in_parts(kImages, threads, [&](int64_t begin, int64_t end) {
    dlp::augment::augment_cpu<uint32_t>(images.data(), ids.data(), begin, end, settings, table.data(), weak.data(),
                                        strong.data());
  });
  std::vector<uint8_t> out;
  append(out, weak);
  append(out, strong);
  return out;
}

std::vector<uint8_t> inject(int64_t threads) {
  constexpr int64_t kImages = 9, kHeight = 150, kWidth = 40;
  std::vector<uint8_t> images = bytes_of_noise(kImages * kHeight * kWidth * 3);
  const std::vector<uint8_t> overlay = bytes_of_noise(kHeight * kWidth * 3);
  const std::vector<int16_t> terms(overlay.size(), -9);
  const std::vector<dlp::TriggerRecord> records{{dlp::kPatch, 3, 2, 90, 30, 0, 0, 0, 0},
                                                {dlp::kBlend, 0, 0, kHeight, kWidth, 0, 0, 0, -9000},
                                                {dlp::kAdditive, 0, 0, kHeight, kWidth, 0, 0, 0, 0}};
  std::vector<int64_t> which(kImages), rows;
  for (int64_t i = 0; i < kImages; ++i) {
    which[static_cast<size_t>(i)] = i % 4 - 1;
    if (i % 4 > 0) rows.push_back(i);
  }
  dlp::InjectArgs args{};
  args.images = images.data();
  args.out = images.data();
  args.images_stride = args.out_stride = kHeight * kWidth * 3;
  args.out_type = dlp::PixelOut::kUInt8;
  args.which = which.data();
  args.count = kImages, args.height = kHeight, args.width = kWidth;
  args.records = records.data(), args.record_count = static_cast<int64_t>(records.size());
  args.overlay = overlay.data(), args.overlay_size = static_cast<int64_t>(overlay.size());
  args.terms = terms.data(), args.terms_size = static_cast<int64_t>(terms.size());
  const int64_t units = static_cast<int64_t>(rows.size()) * dlp::bands_of(kHeight);
  in_parts(units, threads, [&](int64_t begin, int64_t end) { dlp::inject_trigger_cpu(args, rows.data(), begin, end); });
  return images;
}

std::vector<uint8_t> residual_scan(int64_t threads) {
  constexpr int kImages = 9, kHeight = 21, kWidth = 30;
  const std::vector<uint8_t> images = bytes_of_noise(kImages * kHeight * kWidth * 3);
  std::vector<float> mean(kHeight * kWidth * 3, 0.5f), residuals(images.size());
  std::vector<int64_t> hashes(kImages * (kHeight - 2) * (kWidth - 2));
  in_parts(kImages, threads, [&](int64_t begin, int64_t end) {
    dlp::residual_scan::high_pass_residual_cpu(images.data(), mean.data(), begin, end, kHeight, kWidth,
                                               residuals.data());
    dlp::residual_scan::window_hashes_cpu(images.data(), begin, end, kHeight, kWidth, 90, hashes.data());
  });
  std::vector<uint8_t> out;
  append(out, residuals);
  append(out, hashes);
  return out;
}

template <class Element>
std::vector<uint8_t> batch_norm_relu(int64_t threads) {
  constexpr int64_t kRows = 2'999, kChannels = 48;
  std::vector<Element> x(kRows * kChannels), gradient(x.size()), y(x.size()), still(x.size()), out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {  // of a bf16 the sign and the exponent are those of numbers near 1
    const auto value = [](uint32_t bits) { return sizeof(Element) == 4 ? bits % 999 / 99.0 - 5.0 : 0x3f00 + bits % 512; };
    x[i] = static_cast<Element>(value(noise(static_cast<int64_t>(i))));
    gradient[i] = static_cast<Element>(value(noise(static_cast<int64_t>(i + x.size()))));
  }
  std::vector<float> weight(kChannels, 1.5f), bias(kChannels, -0.5f), mean(kChannels), variance(kChannels);
  std::vector<float> of_weight(kChannels), of_bias(kChannels);
  const dlp::batch_norm::Layer<Element> layer{x.data(), kRows, kChannels, weight.data(), bias.data(), 1e-5};
  dlp::batch_norm::forward_cpu(layer, parallel(threads), y.data(), mean.data(), variance.data());
  dlp::batch_norm::eval_cpu(layer, weight.data(), weight.data(), parallel(threads), still.data());
  dlp::batch_norm::backward_cpu(gradient.data(), layer, mean.data(), variance.data(), parallel(threads), out.data(),
                                of_weight.data(), of_bias.data());
  std::vector<uint8_t> bytes;
  for (const auto* of : {&y, &still, &out}) append(bytes, *of);
  for (const auto* of : {&mean, &variance, &of_weight, &of_bias}) append(bytes, *of);
  return bytes;
}

void race() {
  int number = 0;
  in_parts(kThreads, kThreads, [&](int64_t begin, int64_t) { number += static_cast<int>(begin); });
  std::printf("race %d\n", number);
}

}  // namespace

int main(int count, char** words) {
  if (count > 1 && std::strcmp(words[1], "race") == 0) return race(), 0;
  const std::pair<const char*, std::function<std::vector<uint8_t>(int64_t)>> kernels[] = {
      {"row_entropy", row_entropy},
      {"select, few", [](int64_t t) { return select(t, 1, 50, 1u << 30); }},
      {"select, few of each class", [](int64_t t) { return select(t, 10, 20, 1u << 30); }},
      {"select, many", [](int64_t t) { return select(t, 1, 60'000, 1u << 30); }},
      {"select, many of each class", [](int64_t t) { return select(t, 10, 3'000, 1u << 30); }},
      {"select, ties", [](int64_t t) { return select(t, 10, 500, 3); }},
      {"select, more classes than a histogram takes", [](int64_t t) { return select(t, 5'000, 7, 1u << 30); }},
      {"augment", augment},
      {"inject_trigger", inject},
      {"residual_scan", residual_scan},
      {"batch_norm_relu, fp32", batch_norm_relu<float>},
      {"batch_norm_relu, bf16", batch_norm_relu<uint16_t>},
  };
  int differ = 0;
  for (const auto& [name, kernel] : kernels) {
    const bool same = kernel(1) == kernel(kThreads);
    differ += !same;
    std::printf("%s: %s\n", name, same ? "same" : "DIFFERS");
  }
  return differ != 0;
}
