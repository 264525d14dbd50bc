#include "cpu/augment.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "cpu/augment_rows.h"

namespace dlp::augment {
namespace {

constexpr int kSlack = 16;  // pixels are copied as four bytes, one more than they have

void copy_pixel(uint8_t* to, const uint8_t* from) {
  uint32_t four;
  std::memcpy(&four, from, 4);
  std::memcpy(to, &four, 4);
}

struct Tables {
  uint8_t value[kChannels][kBins];
};

// Neighbouring pixels are often equal, so they are counted apart: an increment need not wait for the last
// one.
struct Histogram {
  int count[2][kChannels][kBins];
};

// One image in two buffers: what an operation cannot do in place goes from the front one to the back one.
class Canvas {
 public:
  Canvas(int height, int width)
      : height_(height),
        width_(width),
        row_(width * kChannels),
        bytes_(height * row_),
        front_(bytes_ + kSlack),
        back_(bytes_ + kSlack) {}

  const uint8_t* pixels() const { return front_.data(); }

  void load(const uint8_t* image, const View& view, const Settings& settings) {
    // columns lo..hi-1 come from inside the image, the rest from its reflection
    const int offset = view.dx - settings.pad;
    const int lo = std::max(0, -offset), hi = std::min(width_, width_ - offset);
    for (int y = 0; y < height_; ++y) {
      const uint8_t* from = image + source_row(view, settings, y) * row_;
      uint8_t* to = front_.data() + y * row_;
      if (view.flip) {
        rows_.mirror(from + 3 * (width_ - hi - offset), hi - lo, to + 3 * lo);
      } else {
        std::memcpy(to + 3 * lo, from + 3 * (lo + offset), 3 * (hi - lo));
      }
      const auto reflected = [&](int x) {
        std::memcpy(to + 3 * x, from + 3 * source_column(view, settings, x), 3);
      };
      for (int x = 0; x < lo; ++x) reflected(x);
      for (int x = hi; x < width_; ++x) reflected(x);
    }
  }

  void apply(const Draw& draw) {
    switch (draw.operation) {
      case kIdentity:
        return;
      case kAutoContrast:
      case kEqualize:
        return histogram_operation(draw.operation);
      case kColor:
        return color(blend_factor(draw.level));
      case kSharpness:
        return sharpness(blend_factor(draw.level));
      case kBrightness:
        return rows_.blend_constant(front_.data(), bytes_, 0, blend_factor(draw.level));
      case kContrast:
        return rows_.blend_constant(front_.data(), bytes_, mean_luma(), blend_factor(draw.level));
      case kPosterize:
        return rows_.posterize(front_.data(), bytes_, posterize_mask(draw.level));
      case kSolarize:
        return rows_.solarize(front_.data(), bytes_, solarize_threshold(draw.level));
      default:
        return geometric(affine_of(draw, height_, width_));
    }
  }

  void cut_out(const Box& box) {
    for (int y = box.y0; y <= box.y1; ++y) {
      std::memset(front_.data() + y * row_ + 3 * box.x0, kGrey, 3 * (box.x1 - box.x0 + 1));
    }
  }

  void store(const uint16_t* table, uint16_t* out) const { rows_.look_up16(pixels(), bytes_, table, out); }
  void store(const uint32_t* table, uint32_t* out) const { rows_.look_up32(pixels(), bytes_, table, out); }

 private:
  int mean_luma() const {
    int64_t sum = 0;
    const uint8_t* end = pixels() + bytes_;
    for (const uint8_t* p = pixels(); p != end; p += 3) sum += luma(p[0], p[1], p[2]);
    return rounded_mean(sum, height_ * width_);
  }

  void histogram_operation(int operation) {
    Histogram histogram{};
    for (int i = 0; i + 6 <= bytes_; i += 6) {
      for (int c = 0; c < 6; ++c) ++histogram.count[c / 3][c % 3][front_[i + c]];
    }
    if (bytes_ % 6 != 0) {
      for (int c = 0; c < kChannels; ++c) ++histogram.count[0][c][front_[bytes_ - 3 + c]];
    }
    Tables tables;
    for (int c = 0; c < kChannels; ++c) {
      int* count = histogram.count[0][c];
      for (int v = 0; v < kBins; ++v) count[v] += histogram.count[1][c][v];
      int low = 0, high = kBins - 1;
      while (count[low] == 0) ++low;
      while (count[high] == 0) --high;
      for (int v = 0, before = 0; v < kBins; before += count[v++]) {
        tables.value[c][v] = operation == kAutoContrast ? auto_contrast(v, low, high)
                                                        : equalize(v, before, count[high], height_ * width_);
      }
    }
    rows_.look_up8(pixels(), bytes_, tables.value[0], front_.data());
  }

  void color(float factor) {
    const uint8_t* end = pixels() + bytes_;
    uint8_t* grey = back_.data();
    for (const uint8_t* p = pixels(); p != end; p += 3, grey += 3) {
      std::memset(grey, luma(p[0], p[1], p[2]), 3);
    }
    rows_.blend_bytes(front_.data(), back_.data(), bytes_, factor);
  }

  // The border is its own smoothed value, so it stays as it is. All rows between are one run, for the sake of
  // wide registers; what that does to the first and last column is put right afterwards.
  void sharpness(float factor) {
    uint8_t* to = back_.data();
    std::memcpy(to, pixels(), row_);
    rows_.sharpen(to + row_ + 3, pixels() + 3, pixels() + row_ + 3, pixels() + 2 * row_ + 3,
                  bytes_ - 2 * row_ - 6, factor);
    for (int start = row_; start < bytes_ - row_; start += row_) {
      std::memcpy(to + start, pixels() + start, 3);
      std::memcpy(to + start + row_ - 3, pixels() + start + row_ - 3, 3);
    }
    std::memcpy(to + bytes_ - row_, pixels() + bytes_ - row_, row_);
    std::swap(front_, back_);
  }

  void geometric(const Affine& map) {
    std::fill(back_.begin(), back_.end(), uint8_t{0});
    const auto inside = [&](int xx, int yy) {
      return static_cast<unsigned>(xx >> 16) < static_cast<unsigned>(width_) &&
             static_cast<unsigned>(yy >> 16) < static_cast<unsigned>(height_);
    };
    for (int y = 0; y < height_; ++y) {
      const int xx = map.xx + y * map.b, yy = map.yy + y * map.e;
      // source pixels of a row lie on a line, so those inside the image are neighbours
      int lo = 0, hi = width_;
      while (lo < hi && !inside(xx + lo * map.a, yy + lo * map.d)) ++lo;
      while (lo < hi && !inside(xx + (hi - 1) * map.a, yy + (hi - 1) * map.d)) --hi;
      uint8_t* to = back_.data() + y * row_;
      if (lo < hi && map.a == 65536 && map.d == 0) {  // the row only moves: translations and shear_x
        std::memcpy(to + 3 * lo, pixels() + (yy >> 16) * row_ + 3 * ((xx >> 16) + lo), 3 * (hi - lo));
        continue;
      }
      for (int x = lo; x < hi; ++x) {
        const int column = (xx + x * map.a) >> 16, line = (yy + x * map.d) >> 16;
        copy_pixel(to + 3 * x, pixels() + line * row_ + 3 * column);
      }
      // the last copy wrote one byte too many, which the next row's first pixel may not cover
      if (lo < hi) to[3 * hi] = 0;
    }
    std::swap(front_, back_);
  }

  int height_, width_, row_, bytes_;
  const RowKernels& rows_ = row_kernels();
  std::vector<uint8_t> front_, back_;
};

}  // namespace

template <typename Value>
void augment_cpu(const uint8_t* images, const int64_t* ids, int64_t begin, int64_t end,
                 const Settings& settings, const Value* table, Value* weak, Value* strong) {
  const int64_t size = int64_t{settings.height} * settings.width * kChannels;
  Canvas canvas(settings.height, settings.width);
  for (int64_t i = begin; i < end; ++i) {
    const uint8_t* image = images + i * size;
    canvas.load(image, draw_view(settings, ids[i], kBlockWeak), settings);
    canvas.store(table, weak + i * size);
    if (strong == nullptr) continue;
    canvas.load(image, draw_view(settings, ids[i], kBlockStrong), settings);
    for (int k = 0; k < settings.operations; ++k) canvas.apply(draw_operation(settings, ids[i], k));
    canvas.cut_out(draw_cutout(settings, ids[i]));
    canvas.store(table, strong + i * size);
  }
}

template void augment_cpu<uint16_t>(const uint8_t*, const int64_t*, int64_t, int64_t, const Settings&,
                                    const uint16_t*, uint16_t*, uint16_t*);
template void augment_cpu<uint32_t>(const uint8_t*, const int64_t*, int64_t, int64_t, const Settings&,
                                    const uint32_t*, uint32_t*, uint32_t*);

}  // namespace dlp::augment
