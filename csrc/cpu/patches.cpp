// The windowed constraints of a call, and the squared errors of the same images: tiles shared out among threads, every
// constraint done on a tile while it is in the cache.

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "cpu/constraints.h"
#include "cpu/isa/kernels.h"
#include "cpu/isa/patches/sweep.h"
#include "cpu/parallel.h"
#include "cpu/thread_scratch.h"
#include "math/half.h"

namespace geco::cpu {

WindowGeometry::WindowGeometry(std::int64_t patch_size, std::int64_t patch_stride)
    : patch(patch_size),
      stride(patch_stride),
      levels(window_levels(patch_size)),
      cover_levels(window_levels((patch_size + patch_stride - 1) / patch_stride)) {
  if (stride == 1) return;
  // From a patch downwards: a window that is needed needs the two it is merged from.
  needed_.assign(static_cast<std::size_t>((levels + 1) * stride), 0);
  const auto mark = [this](int level, std::int64_t row) {
    return &needed_[static_cast<std::size_t>(level * stride + row % stride)];
  };
  for_each_part(patch, levels, [&](int level, std::int64_t offset) { *mark(level, offset) = 1; });
  for (int level = levels; level > 0; --level) {
    for (std::int64_t row = 0; row < stride; ++row) {
      if (*mark(level, row)) *mark(level - 1, row) = *mark(level - 1, row + (std::int64_t{1} << (level - 1))) = 1;
    }
  }
  needed = needed_.data();
}

namespace {

// Columns of a tile: the rings of a patch of 8 are 200 KiB then, in a second-level cache; narrower tiles, for the first
// level, cost more at their seams than they gain. They are halved where a thread would need more memory than this.
constexpr std::int64_t kTileColumns = 512, kFewestColumns = 64;
constexpr std::int64_t kMostScratch = std::int64_t{3} << 19;

// Bytes of images and gradient of a tile that several sweeps go over: half of a second-level cache.
constexpr std::int64_t kTileBytes = std::int64_t{1} << 20;

// All constraints of one geometry: they share their statistics.
struct Pass {
  WindowGeometry geometry;
  bool per_channel;
  std::vector<const Constraint*> constraints;
  std::vector<WindowRule> rules;

  Pass(const Patches& patches, std::int64_t stride)
      : geometry(patches.size, stride), per_channel(patches.per_channel) {}

  // In the order of their kinds: two kinds have a loop of their own (sweep.inl).
  void add(const Constraint& constraint, const WindowRule& rule) {
    const auto after =
        std::find_if(rules.begin(), rules.end(), [&rule](const WindowRule& r) { return r.kind > rule.kind; });
    constraints.insert(constraints.begin() + (after - rules.begin()), &constraint);
    rules.insert(after, rule);
  }
};

std::vector<std::unique_ptr<Pass>> passes_of(const LossCall& call, int input) {
  std::vector<std::unique_ptr<Pass>> passes;
  const std::int64_t* sizes = call.inputs[input].prediction.sizes;
  for (const Constraint& constraint : *call.constraints) {
    if (!is_windowed(constraint.kind) || constraint.inputs[0] != input) continue;
    const Patches& patches = constraint.patches;
    const std::int64_t stride = std::min(patches.stride, std::max(sizes[2], sizes[3]));  // beyond: one position
    const auto same = [&patches, stride](const std::unique_ptr<Pass>& pass) {
      return pass->geometry.patch == patches.size && pass->geometry.stride == stride &&
             pass->per_channel == patches.per_channel && pass->constraints.size() < kMostRules;
    };
    auto found = std::find_if(passes.begin(), passes.end(), same);
    if (found == passes.end()) found = passes.insert(found, std::make_unique<Pass>(patches, stride));
    const double multiplier = std::exp(log_multiplier(scale_rule(constraint.kind), call.state, constraint.first_row,
                                                      compared_elements(call, constraint)));
    const double sign = sign_of_measured(scale_rule(constraint.kind));
    const double weight = patch_weight(patches, call.inputs[input]) / static_cast<double>(call.batch);
    const double numbers = static_cast<double>(numbers_of_patch(patches, call.inputs[input]));
    // A single number correlates with any other: no gradient, where rounding would leave some.
    const bool constant = constraint.kind == ConstraintKind::kPatchCorrelation && numbers == 1;
    (*found)->add(constraint, {constraint.kind, patches.eps, constant ? 0.0 : sign * multiplier * weight / numbers});
  }
  return passes;
}

Planes planes_of(const Tensor& tensor, std::int64_t example, std::int64_t channel) {
  if (!tensor) return {};
  const std::int64_t offset = example * tensor.strides[0] + channel * tensor.strides[1];
  return {static_cast<char*>(tensor.data) + offset * size_of(tensor.type), tensor.type, tensor.strides[1],
          tensor.strides[2], tensor.strides[3]};
}

// A usual number of some channels of an example: what is subtracted so that images far from zero keep their digits. The
// median of a few, so that no outlier decides.
template <class T>
double median_of_grid(const Tensor& images, std::int64_t offset, std::int64_t channels) {
  constexpr std::int64_t kGrid = 4, kMostChannels = 4;
  const T* const data = static_cast<const T*>(images.data) + offset;
  double samples[kGrid * kGrid * kMostChannels];
  int count = 0;
  const std::int64_t some = std::min(channels, kMostChannels);
  for (std::int64_t i = 0; i < kGrid * kGrid; ++i) {
    const std::int64_t row = (2 * (i / kGrid) + 1) * images.sizes[2] / (2 * kGrid);
    const std::int64_t column = (2 * (i % kGrid) + 1) * images.sizes[3] / (2 * kGrid);
    const T* const pixel = data + row * images.strides[2] + column * images.strides[3];
    for (std::int64_t c = 0; c < some; ++c) {
      const double number = static_cast<double>(to_float(pixel[c * channels / some * images.strides[1]]));
      if (std::isfinite(number)) samples[count++] = number;
    }
  }
  if (count == 0) return 0;
  std::nth_element(samples, samples + count / 2, samples + count);
  return samples[count / 2];
}

double reference_of(const Tensor& images, std::int64_t example, std::int64_t channel, std::int64_t channels) {
  const std::int64_t offset = example * images.strides[0] + channel * images.strides[1];
  switch (images.type) {
    case DataType::kFloat32: return median_of_grid<float>(images, offset, channels);
    case DataType::kFloat64: return median_of_grid<double>(images, offset, channels);
    case DataType::kFloat16: return median_of_grid<Half>(images, offset, channels);
    default: return median_of_grid<BFloat16>(images, offset, channels);
  }
}

// The windowed constraints and squared errors of one input.
class ImageSweep {
 public:
  ImageSweep(const LossCall& call, int input)
      : call_(call),
        images_(call.inputs[input]),
        squared_errors_(call, input, {ConstraintKind::kSquaredError, 0.0}),
        coefficients_(squared_errors_.coefficients()),
        passes_(passes_of(call, input)),
        channels_(images_.prediction.sizes[1]),
        height_(images_.prediction.sizes[2]),
        width_(images_.prediction.sizes[3]),
        blocks_((height_ + kBlockRows - 1) / kBlockRows) {
    is_wide_ = images_.prediction.type == DataType::kFloat64 || images_.target.type == DataType::kFloat64;
    if (coefficients_.size() == 1) coefficients_.resize(static_cast<std::size_t>(channels_), coefficients_[0]);
    cut_into_tiles();
  }

  void run(double* c_hat) {
    std::vector<double> sums(static_cast<std::size_t>(call_.batch * strips_ * sums_of_strip()), 0.0);
    const std::int64_t items = call_.batch * bands_ * strips_;
    const bool small = images_.prediction.elements() < kParallelElements / 8;
    const int threads = small ? 1 : call_.threads;
    std::vector<char> far_blocks(static_cast<std::size_t>(is_wide_ ? 0 : call_.batch * strips_ * blocks_), 0);
    parallel_for(items, threads, [&](std::int64_t item) {
      const std::int64_t strip = item % strips_, band = item / strips_ % bands_, example = item / strips_ / bands_;
      const std::int64_t tile = example * strips_ + strip, first_row = band * band_rows_;
      run_tile({example, strip, first_row, std::min(height_, first_row + band_rows_)},
               sums.data() + tile * sums_of_strip(), is_wide_, is_wide_ ? nullptr : far_blocks.data() + tile * blocks_);
    });
    run_again_in_double(far_blocks, threads, sums);
    add_up(sums, c_hat);
  }

 private:
  struct Tile {
    std::int64_t example, strip, first_row, last_row;
  };

  // Strips are part of what is computed (rows are summed within them), bands only of who does it.
  void cut_into_tiles() {
    std::int64_t sweeps = 0;
    for (const auto& pass : passes_) {
      most_patch_ = std::max(most_patch_, pass->geometry.patch);
      sweeps += pass->per_channel ? channels_ : 1;
    }
    for (std::int64_t columns = kTileColumns;; columns /= 2) {
      strips_ = std::max<std::int64_t>(1, (width_ + columns / 2) / columns);
      strip_columns_ = (width_ + strips_ - 1) / strips_;
      const bool narrowest = columns / 2 < std::max(kFewestColumns, 2 * most_patch_);
      if (narrowest || scratch_bytes() <= kMostScratch) break;
    }
    strips_ = (width_ + strip_columns_ - 1) / strip_columns_;
    const std::int64_t tiles = call_.batch * strips_, wanted = call_.threads > 1 ? 4 * call_.threads : 1;
    std::int64_t bands = (wanted + tiles - 1) / tiles;
    if (sweeps > 1) {
      const std::int64_t row_bytes = 3 * channels_ * strip_columns_ * std::int64_t{sizeof(float)};
      bands = std::max(bands, height_ * row_bytes / kTileBytes);
    }
    // A band of less than a few patches is mostly what its neighbours compute as well.
    const std::int64_t most_useful = std::max<std::int64_t>(1, height_ / (3 * most_patch_));
    bands = std::clamp<std::int64_t>(bands, 1, most_useful);
    band_rows_ = ((height_ + bands - 1) / bands + kBlockRows - 1) / kBlockRows * kBlockRows;
    bands_ = (height_ + band_rows_ - 1) / band_rows_;
  }

  // [pass, channel group, rule][block], then squared errors [channel][block].
  std::int64_t sums_of_strip() const {
    std::int64_t rows = channels_;
    for (const auto& pass : passes_) rows += groups_of(*pass) * static_cast<std::int64_t>(pass->rules.size());
    return rows * blocks_;
  }

  std::int64_t groups_of(const Pass& pass) const { return pass.per_channel ? channels_ : 1; }

  // Of the tile that needs most.
  std::int64_t scratch_bytes() const {
    std::int64_t most = 0;
    const SweepScratch scratch = kernels().patches_scratch[is_wide_];
    for (const auto& pass : passes_) most = std::max(most, scratch(sweep_of(*pass, 0, {0, 0, 0, height_})));
    return most;
  }

  Sweep sweep_of(const Pass& pass, std::int64_t channel, const Tile& tile) const {
    const std::int64_t example = tile.example;
    Sweep sweep{};
    sweep.geometry = &pass.geometry;
    sweep.prediction = planes_of(images_.prediction, example, channel);
    sweep.target = planes_of(images_.target, example, channel);
    sweep.gradient = planes_of(images_.gradient, example, channel);
    sweep.height = height_;
    sweep.width = width_;
    sweep.channels = channels_ / groups_of(pass);
    sweep.rules = pass.rules.data();
    sweep.rule_count = static_cast<int>(pass.rules.size());
    sweep.first_row = tile.first_row;
    sweep.last_row = tile.last_row;
    sweep.first_column = tile.strip * strip_columns_;
    sweep.last_column = std::min(width_, sweep.first_column + strip_columns_);
    sweep.blocks = blocks_;
    if (strips_ == 1 && bands_ == 1 && passes_.size() == 1 && groups_of(pass) == 1 && example + 1 < call_.batch) {
      sweep.next_prediction = planes_of(images_.prediction, example + 1, channel).data;
      sweep.next_target = planes_of(images_.target, example + 1, channel).data;
      sweep.next_gradient = planes_of(images_.gradient, example + 1, channel).data;
    }
    return sweep;
  }

  void run_tile(const Tile& tile, double* sums, bool wide, char* far_blocks) const {
    double* const squared_error_sums = sums + sums_of_strip() - channels_ * blocks_;
    for (const auto& pass : passes_) {
      for (std::int64_t channel = 0; channel < groups_of(*pass); ++channel) {
        Sweep sweep = sweep_of(*pass, channel, tile);
        sweep.reference_hat = reference_of(images_.prediction, tile.example, channel, sweep.channels);
        sweep.reference = reference_of(images_.target, tile.example, channel, sweep.channels);
        sweep.far_blocks = far_blocks;
        sweep.adds = pass != passes_.front();
        if (!sweep.adds && !coefficients_.empty()) sweep.squared_error_coefficients = coefficients_.data() + channel;
        sweep.value_sums = sums;
        sweep.squared_error_sums = squared_error_sums + channel * blocks_;
        sums += sweep.rule_count * blocks_;
        kernels().patches[wide](sweep, thread_scratch().at_least(kernels().patches_scratch[wide](sweep)));
      }
    }
    thread_scratch().trim(kMostScratch);
  }

  // One reference serves an image as long as no part of it is far from it and varies little, like a dark part beside a
  // bright one. The blocks of rows that such patches reach into are computed anew, in float64. Which these are does not
  // depend on how rows were shared out.
  void run_again_in_double(const std::vector<char>& far_blocks, int threads, std::vector<double>& sums) const {
    std::vector<Tile> tiles;
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(far_blocks.size()); ++i) {
      if (!far_blocks[static_cast<std::size_t>(i)]) continue;
      const std::int64_t tile = i / blocks_, first = i % blocks_ * kBlockRows;
      const std::int64_t reach = first + kBlockRows + most_patch_ - 1;
      const std::int64_t last = std::min(height_, (reach + kBlockRows - 1) / kBlockRows * kBlockRows);
      const Tile again = {tile / strips_, tile % strips_, first, last};
      Tile* const before = tiles.empty() ? nullptr : &tiles.back();
      if (before && before->example == again.example && before->strip == again.strip && first <= before->last_row) {
        before->last_row = last;
      } else {
        tiles.push_back(again);
      }
    }
    parallel_for(static_cast<std::int64_t>(tiles.size()), threads, [&](std::int64_t i) {
      const Tile& tile = tiles[static_cast<std::size_t>(i)];
      double* const of_strip = sums.data() + (tile.example * strips_ + tile.strip) * sums_of_strip();
      for (std::int64_t row = 0; row < sums_of_strip() / blocks_; ++row) {
        double* const of_blocks = of_strip + row * blocks_;
        std::fill(of_blocks + tile.first_row / kBlockRows, of_blocks + (tile.last_row + kBlockRows - 1) / kBlockRows,
                  0.0);
      }
      run_tile(tile, of_strip, true, nullptr);
    });
  }

  // In one order, whoever did the tiles.
  void add_up(const std::vector<double>& sums, double* c_hat) const {
    std::vector<double> squared_errors(static_cast<std::size_t>(channels_), 0.0);
    for (const auto& pass : passes_) {
      for (const Constraint* constraint : pass->constraints) c_hat[constraint->first_row] = 0;
    }
    const double* next = sums.data();
    const auto sum_of_blocks = [&] {
      double sum = 0;
      for (std::int64_t block = 0; block < blocks_; ++block) sum += *next++;
      return sum;
    };
    for (std::int64_t tile = 0; tile < call_.batch * strips_; ++tile) {
      for (const auto& pass : passes_) {
        for (std::int64_t group = 0; group < groups_of(*pass); ++group) {
          for (const Constraint* constraint : pass->constraints) c_hat[constraint->first_row] += sum_of_blocks();
        }
      }
      for (double& sum : squared_errors) sum += sum_of_blocks();
    }
    for (const auto& pass : passes_) {
      for (const Constraint* constraint : pass->constraints) {
        double& c = c_hat[constraint->first_row];
        c *= patch_weight(constraint->patches, images_) / static_cast<double>(call_.batch);
        c = constraint_value(scale_rule(constraint->kind), c, call_.state.at(Row::kKappa, constraint->first_row));
      }
    }
    if (squared_errors_.channels() == 1) {
      for (std::size_t c = 1; c < squared_errors.size(); ++c) squared_errors[0] += squared_errors[c];
    }
    if (squared_errors_.channels() > 0) squared_errors_.add(squared_errors, c_hat);
  }

  const LossCall& call_;
  const Input& images_;
  const MeasuredConstraints squared_errors_;
  std::vector<double> coefficients_;  // of each channel; empty: no squared error
  const std::vector<std::unique_ptr<Pass>> passes_;
  const std::int64_t channels_, height_, width_, blocks_;
  bool is_wide_ = false;  // computed in float64
  std::int64_t most_patch_ = 1, strips_ = 1, strip_columns_ = 1, bands_ = 1, band_rows_ = 0;
};

}  // namespace

bool has_patches(const LossCall& call, int input) {
  return std::any_of(call.constraints->begin(), call.constraints->end(), [input](const Constraint& constraint) {
    return is_windowed(constraint.kind) && constraint.inputs[0] == input;
  });
}

void patch_constraints(const LossCall& call, double* c_hat) {
  for (int i = 0; i < static_cast<int>(call.inputs.size()); ++i) {
    if (has_patches(call, i)) ImageSweep(call, i).run(c_hat);
  }
}

}  // namespace geco::cpu
