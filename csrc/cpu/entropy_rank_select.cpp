// Choice of the best rows of each group: a radix select on 11, 11 and 10 bits that stops as soon as few
// candidates are left, a compaction that keeps the order of ids, and a sort of the winners only.
#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/entropy_rank.h"
#include "rank_key.h"

namespace dlp::cpu {

namespace {

// Above this many groups a histogram for each would leave the second-level cache; rows are dealt out by group
// instead.
constexpr int64_t kMaxHistogramGroups = 64;
// Candidates worth carrying along instead of counting one digit more: a 16th of the rows.
constexpr int64_t kFewShare = 16;
constexpr int64_t kMinChunk = 16384;
constexpr int64_t kSmallSort = 512;

struct Entry {
  uint32_t key, place;
};

// First bin at which the running count passes `wanted`; `wanted` becomes what is still to be taken from that
// bin.
template <class Count>
int find_bin(const Count* hist, int bins, int64_t& wanted) {
  int bin = 0;
  while (bin < bins - 1 && static_cast<int64_t>(hist[bin]) < wanted) wanted -= hist[bin++];
  return bin;
}

// Stable least-digit-first sort by key; a digit that all keys share costs one count and no move.
void sort_by_key(std::vector<Entry>& entries) {
  if (static_cast<int64_t>(entries.size()) <= kSmallSort) {
    std::sort(entries.begin(), entries.end(),
              [](const Entry& a, const Entry& b) { return a.key != b.key ? a.key < b.key : a.place < b.place; });
    return;
  }
  std::vector<int64_t> hist(kDigits * kBins);
  for (const Entry& e : entries)
    for (int level = 0; level < kDigits; ++level)
      ++hist[level * kBins + ((e.key >> digit_shift(level)) & digit_mask(level))];
  std::vector<Entry> other(entries.size());
  for (int level = kDigits - 1; level >= 0; --level) {
    int64_t* counts = hist.data() + level * kBins;
    const int shift = digit_shift(level);
    const uint32_t mask = digit_mask(level);
    if (counts[(entries[0].key >> shift) & mask] == static_cast<int64_t>(entries.size())) continue;
    int64_t sum = 0;
    for (int b = 0; b < kBins; ++b) {
      const int64_t count = counts[b];
      counts[b] = sum;
      sum += count;
    }
    for (const Entry& e : entries) other[counts[(e.key >> shift) & mask]++] = e;
    entries.swap(other);
  }
}

}  // namespace

void choose_sorted(const uint32_t* keys, const int64_t* ids, int64_t count, int64_t wanted, int64_t* out) {
  uint32_t limit = 0xffffffffu;
  int64_t ties = wanted;
  if (wanted < count) {
    std::vector<uint32_t> hist(kBins);
    uint32_t prefix = 0;
    for (int level = 0; level < kDigits; ++level) {
      const int shift = digit_shift(level), above = level == 1 ? 21 : 10;
      std::fill(hist.begin(), hist.end(), 0u);
      for (int64_t i = 0; i < count; ++i)
        if (level == 0 || keys[i] >> above == prefix) ++hist[(keys[i] >> shift) & digit_mask(level)];
      const uint32_t bin = static_cast<uint32_t>(find_bin(hist.data(), static_cast<int>(digit_mask(level)) + 1, ties));
      prefix = prefix << (level == 2 ? 10 : 11) | bin;
    }
    limit = prefix;
  }
  std::vector<Entry> winners;
  winners.reserve(static_cast<size_t>(wanted));
  for (int64_t i = 0; i < count; ++i) {
    if (keys[i] > limit || (wanted < count && keys[i] == limit && ties-- <= 0)) continue;
    winners.push_back({keys[i], static_cast<uint32_t>(i)});
  }
  sort_by_key(winners);
  for (int64_t i = 0; i < wanted; ++i) out[i] = ids[winners[i].place];
}

Faults select(const Scores& scores, int64_t count, int64_t threads, const Parallel& parallel, int64_t* chosen,
              int64_t* counts) {
  if (select_below_thresholds(scores, count, threads, parallel, chosen, counts)) return {scores.rows, scores.rows};
  const RankKernels& kernels = rank_kernels();
  const int64_t rows = scores.rows, groups = scores.groups;
  const int64_t chunks = std::max<int64_t>(1, std::min(threads, rows / kMinChunk));
  const auto begin_of = [&](int64_t chunk) { return rows / chunks * chunk + std::min(chunk, rows % chunks); };

  std::vector<Faults> found(static_cast<size_t>(chunks), Faults{rows, rows});
  std::vector<uint32_t> limit(static_cast<size_t>(groups), 0u);
  std::vector<int64_t> wanted(static_cast<size_t>(groups), count), total(static_cast<size_t>(groups), 0);
  // Of each chunk and group: rows surely taken, and rows that share the group's prefix.
  std::vector<int64_t> sure(static_cast<size_t>(chunks * groups), 0), equal(static_cast<size_t>(chunks * groups), 0);
  int shift = 0;
  bool exact = false;

  if (groups <= kMaxHistogramGroups && count > 0) {
    std::vector<std::vector<uint32_t>> hist(static_cast<size_t>(chunks));
    std::vector<int64_t> sum(kBins);
    for (int level = 0; level < kDigits && !exact; ++level) {
      parallel(chunks, [&](int64_t chunk) {
        std::vector<uint32_t>& mine = hist[chunk];
        mine.assign(static_cast<size_t>(groups * kBins), 0u);
        const Faults faults =
            kernels.histogram(scores, begin_of(chunk), begin_of(chunk + 1), level, limit.data(), mine.data());
        if (level == 0) found[chunk] = faults;
      });
      shift = digit_shift(level);
      int64_t candidates = 0;
      for (int64_t g = 0; g < groups; ++g) {
        std::fill(sum.begin(), sum.end(), int64_t{0});
        for (int64_t c = 0; c < chunks; ++c)
          for (int b = 0; b < kBins; ++b) sum[b] += hist[c][g * kBins + b];
        if (level == 0) {
          for (int b = 0; b < kBins; ++b) total[g] += sum[b];
          wanted[g] = std::min(count, total[g]);
        }
        const int bin = find_bin(sum.data(), static_cast<int>(digit_mask(level)) + 1, wanted[g]);
        limit[g] = limit[g] << (level == 2 ? 10 : 11) | static_cast<uint32_t>(bin);
        for (int64_t c = 0; c < chunks; ++c) {
          const uint32_t* mine = hist[c].data() + g * kBins;
          for (int b = 0; b < bin; ++b) sure[c * groups + g] += mine[b];
          equal[c * groups + g] = mine[bin];
          candidates += sure[c * groups + g] + equal[c * groups + g];
        }
      }
      exact = level == kDigits - 1;
      if (candidates <= rows / kFewShare) break;
    }
    if (!exact) std::fill(wanted.begin(), wanted.end(), rows);  // the whole bin comes along
  } else {
    // Every labelled row is a candidate: one digit of width zero.
    parallel(chunks, [&](int64_t chunk) {
      for (int64_t i = begin_of(chunk); i < begin_of(chunk + 1); ++i) {
        Faults& fault = found[chunk];
        if (fault.score == rows && !is_finite(scores.data[i])) fault.score = i;
        if (scores.labels.type == LabelType::kNone) continue;
        const uint64_t group = scores.labels.type == LabelType::kInt32
                                   ? static_cast<uint64_t>(static_cast<const int32_t*>(scores.labels.data)[i])
                                   : static_cast<uint64_t>(static_cast<const int64_t*>(scores.labels.data)[i]);
        if (group < static_cast<uint64_t>(groups)) {
          ++sure[chunk * groups + static_cast<int64_t>(group)];
        } else if (fault.label == rows) {
          fault.label = i;
        }
      }
    });
    for (int64_t g = 0; g < groups; ++g) {
      limit[g] = 0xffffffffu;
      for (int64_t c = 0; c < chunks; ++c) total[g] += sure[c * groups + g];
    }
  }
  Faults faults{rows, rows};
  for (const Faults& f : found) {
    faults.score = std::min(faults.score, f.score);
    faults.label = std::min(faults.label, f.label);
  }

  // Where each chunk writes within each group, and how many ties of the limit it may take.
  std::vector<int64_t> cursor(sure.size()), ties(sure.size()), last(sure.size()), start(static_cast<size_t>(groups + 1), 0);
  int64_t at = 0;
  for (int64_t g = 0; g < groups; ++g) {
    start[g] = at;
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t i = c * groups + g;
      cursor[i] = at;
      ties[i] = std::min(equal[i], wanted[g]);
      wanted[g] -= ties[i];
      last[i] = static_cast<int64_t>(limit[g]) - (ties[i] == 0 && groups <= kMaxHistogramGroups ? 1 : 0);
      at += sure[i] + ties[i];
    }
  }
  start[groups] = at;
  int64_t written = 0;
  std::vector<int64_t> out_at(static_cast<size_t>(groups));
  for (int64_t g = 0; g < groups; ++g) {
    out_at[g] = written;
    counts[g] = std::min(count, total[g]);
    written += counts[g];
  }
  if (count == 0) return faults;
  const std::unique_ptr<uint32_t[]> keys(new uint32_t[static_cast<size_t>(at)]);
  const std::unique_ptr<int64_t[]> ids(new int64_t[static_cast<size_t>(at)]);
  parallel(chunks, [&](int64_t c) {
    kernels.compact(scores, begin_of(c), begin_of(c + 1), shift, last.data() + c * groups,
                    ties.data() + c * groups, cursor.data() + c * groups, keys.get(), ids.get());
  });
  parallel(groups, [&](int64_t g) {
    if (counts[g] > 0)
      choose_sorted(keys.get() + start[g], ids.get() + start[g], start[g + 1] - start[g], counts[g],
                    chosen + out_at[g]);
  });
  return faults;
}

}  // namespace dlp::cpu
