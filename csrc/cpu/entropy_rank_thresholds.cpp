// Choice of few rows of each group: a threshold for each from a sample, one pass over the rows that collects what is
// not above it, and a choice among that. The result is exact: a threshold that turns out too strict is lifted, and one
// too mild costs time alone. 4 bytes a row (12 with int64 labels) are read once.
#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "cpu/entropy_rank.h"
#include "rank_key.h"

namespace dlp::cpu {

namespace {

constexpr int64_t kMinRows = 8192;     // below, everything is fast
constexpr int64_t kFewShare = 16;      // at most a 16th of the rows is wanted
constexpr int64_t kSample = 2048, kSampleOfGroup = 256;
constexpr int64_t kMinChunk = 16384;   // rows worth a thread
constexpr int64_t kCapacityShare = 4;  // candidates may be a quarter of the rows
constexpr uint32_t kEverything = 0xffffffffu;

int64_t label_of(const Labels& labels, int64_t row) {
  if (labels.type == LabelType::kInt32) return static_cast<const int32_t*>(labels.data)[row];
  return labels.type == LabelType::kInt64 ? static_cast<const int64_t*>(labels.data)[row] : 0;
}

// For each group a key that its `count` best rows are unlikely to exceed: four standard deviations above the place in
// the sample at which they are expected. Every stretch of the rows gives one row, so sorted rows are sampled evenly.
std::vector<uint32_t> thresholds(const Scores& scores, int64_t count, int64_t size) {
  std::vector<std::vector<uint32_t>> keys(static_cast<size_t>(scores.groups));
  uint32_t word = 1;
  for (int64_t i = 0; i < size; ++i) {
    const int64_t begin = scores.rows * i / size, length = scores.rows * (i + 1) / size - begin;
    word = word * 1664525u + 1013904223u;  // a linear congruence: which row of a stretch shall not be a rhythm
    const int64_t row = begin + static_cast<int64_t>(word >> 8) % length;
    const int64_t group = label_of(scores.labels, row);
    if (group < 0 || group >= scores.groups) continue;
    const uint32_t key = rank_key(scores.data[row]);
    keys[static_cast<size_t>(group)].push_back(scores.largest ? ~key : key);
  }
  const double expected = static_cast<double>(count) * static_cast<double>(size) / static_cast<double>(scores.rows);
  const auto place = static_cast<int64_t>(expected + 4.0 * std::sqrt(expected) + 4.0);
  std::vector<uint32_t> limit(static_cast<size_t>(scores.groups), kEverything);
  for (size_t g = 0; g < keys.size(); ++g) {
    if (place >= static_cast<int64_t>(keys[g].size())) continue;
    std::nth_element(keys[g].begin(), keys[g].begin() + place, keys[g].end());
    limit[g] = keys[g][static_cast<size_t>(place)];
  }
  return limit;
}

struct Candidates {
  std::unique_ptr<uint32_t[]> keys;
  std::unique_ptr<int64_t[]> ids;
  std::unique_ptr<uint8_t[]> group;
  int64_t count = 0;
};

// The candidates of all rows by chunks, or nothing.
std::vector<Candidates> collected(const Scores& scores, int64_t count, int64_t threads, const Parallel& parallel,
                                  const std::vector<uint32_t>& limit) {
  const int64_t chunks = std::max<int64_t>(1, std::min(threads, scores.rows / kMinChunk));
  std::vector<Candidates> found(static_cast<size_t>(chunks));
  parallel(chunks, [&](int64_t c) {
    const int64_t begin = scores.rows * c / chunks, end = scores.rows * (c + 1) / chunks;
    const int64_t capacity = (end - begin) / kCapacityShare;
    Candidates& mine = found[static_cast<size_t>(c)];
    mine.keys.reset(new uint32_t[static_cast<size_t>(capacity)]);
    mine.ids.reset(new int64_t[static_cast<size_t>(capacity)]);
    mine.group.reset(new uint8_t[static_cast<size_t>(capacity)]);
    std::vector<int64_t> ties(limit.size(), count);  // more of one chunk cannot be chosen
    mine.count = rank_kernels().collect(scores, begin, end, limit.data(), ties.data(), capacity, mine.keys.get(),
                                        mine.ids.get(), mine.group.get());
  });
  for (const Candidates& mine : found)
    if (mine.count < 0) return {};
  return found;
}

std::vector<int64_t> sizes_of(const std::vector<Candidates>& found, int64_t groups) {
  std::vector<int64_t> sizes(static_cast<size_t>(groups), 0);
  for (const Candidates& mine : found) {
    if (groups == 1) {
      sizes[0] += mine.count;
    } else {
      for (int64_t i = 0; i < mine.count; ++i) ++sizes[mine.group[static_cast<size_t>(i)]];
    }
  }
  return sizes;
}

}  // namespace

bool select_below_thresholds(const Scores& scores, int64_t count, int64_t threads, const Parallel& parallel,
                             int64_t* chosen, int64_t* counts) {
  const int64_t rows = scores.rows, groups = scores.groups;
  if (count == 0 || rows < kMinRows || groups > kCollectGroups || count > rows / kFewShare / groups) return false;
  std::vector<uint32_t> limit = thresholds(scores, count, std::min(rows / 8, kSample + kSampleOfGroup * groups));
  std::vector<Candidates> found;
  std::vector<int64_t> sizes;
  for (int round = 0;; ++round) {
    found = collected(scores, count, threads, parallel, limit);
    if (found.empty()) return false;
    sizes = sizes_of(found, groups);
    bool enough = true;
    for (size_t g = 0; g < limit.size(); ++g) {
      if (sizes[g] >= count || limit[g] == kEverything) continue;
      limit[g] = kEverything;
      enough = false;
    }
    if (enough) break;
  }
  // Group after group, still in the order of ids.
  std::vector<int64_t> start(static_cast<size_t>(groups + 1), 0), written(start);
  for (int64_t g = 0; g < groups; ++g) {
    counts[g] = std::min(count, sizes[g]);
    start[g + 1] = start[g] + sizes[g];
    written[g + 1] = written[g] + counts[g];
  }
  const auto total = static_cast<size_t>(start[groups]);
  const std::unique_ptr<uint32_t[]> keys(new uint32_t[total]);
  const std::unique_ptr<int64_t[]> ids(new int64_t[total]);
  std::vector<int64_t> cursor(start);
  for (const Candidates& mine : found) {
    if (groups == 1) {
      std::copy_n(mine.keys.get(), mine.count, keys.get() + cursor[0]);
      std::copy_n(mine.ids.get(), mine.count, ids.get() + cursor[0]);
      cursor[0] += mine.count;
      continue;
    }
    for (int64_t i = 0; i < mine.count; ++i) {
      const int64_t at = cursor[mine.group[static_cast<size_t>(i)]]++;
      keys[static_cast<size_t>(at)] = mine.keys[static_cast<size_t>(i)];
      ids[static_cast<size_t>(at)] = mine.ids[static_cast<size_t>(i)];
    }
  }
  parallel(groups, [&](int64_t g) {
    if (counts[g] > 0)
      choose_sorted(keys.get() + start[g], ids.get() + start[g], sizes[g], counts[g], chosen + written[g]);
  });
  return true;
}

}  // namespace dlp::cpu
