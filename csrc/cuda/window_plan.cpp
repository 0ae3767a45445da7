#include "cuda/window_plan.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda/layout.h"
#include "cuda/window_memory.h"

namespace geco::cuda {
namespace {

// Channels whose squared errors are told apart by a block that works on all of them; beyond that each channel has
// blocks of its own.
constexpr int kMostChannelsOfBlock = 8;

constexpr std::int64_t kBlocksPerMultiprocessor = 12;
constexpr int kReservedBytesOfBlock = 1024;  // by the driver

struct Images {
  const Input* input;
  int item;
  std::int64_t channels, height, width;
  ImageTypes types;

  bool is_double() const { return types == ImageTypes::kDouble; }
};

ImageTypes types_of(DataType a, DataType b) {
  if (a == DataType::kFloat64 || b == DataType::kFloat64) return ImageTypes::kDouble;
  return a == DataType::kFloat32 && b == DataType::kFloat32 ? ImageTypes::kFloat32 : ImageTypes::kFloat;
}

std::tuple<bool, std::int64_t, std::int64_t> patches_of(const Term& term) {
  return {term.patches.per_channel, term.patches.size, term.patches.stride};
}

// Terms with the same patches next to each other.
std::vector<int> windowed_terms(const Call& call) {
  std::vector<int> found;
  for (int t = 0; t < static_cast<int>(call.terms->size()); ++t) {
    if (is_windowed((*call.terms)[t].kind)) found.push_back(t);
  }
  std::stable_sort(found.begin(), found.end(),
                   [&](int a, int b) { return patches_of((*call.terms)[a]) < patches_of((*call.terms)[b]); });
  return found;
}

Images images_of(const Call& call, const std::vector<int>& terms) {
  const int item = (*call.terms)[terms[0]].inputs[0];
  for (int t : terms) {
    if ((*call.terms)[t].inputs[0] == item) continue;
    throw std::invalid_argument("windowed constraints of one call read the same images");
  }
  const Input& input = call.inputs[item];
  const Tensor& p = input.prediction;
  return {&input, item, p.sizes[1], p.sizes[2], p.sizes[3], types_of(p.type, input.target.type)};
}

void list_windows(const Call& call, const Images& images, const std::vector<int>& terms, Plan& plan) {
  const std::int64_t longest = std::max(images.height, images.width);
  const Term* before = nullptr;
  for (int t : terms) {
    const Term& term = (*call.terms)[t];
    Window& window = plan.windows[plan.window_count++];
    window.eps = term.patches.eps;
    window.size = static_cast<std::int16_t>(std::min<std::int64_t>(term.patches.size, 1 << kLevels));
    window.stride = static_cast<int>(std::min(term.patches.stride, longest));  // beyond it there is one position only
    window.term = static_cast<std::int8_t>(t);
    window.per_channel = term.patches.per_channel;
    window.shares_statistics = before != nullptr && patches_of(*before) == patches_of(term);
    before = &term;
  }
}

// Where any constraint has a value for each channel, blocks work on one channel each (statistics over all channels,
// should there be any, are then made once for each). Squared errors of few channels need no such split.
void split_channels(const Call& call, const Images& images, Plan& plan) {
  bool per_channel = false, squared = false, rows = false;
  for (int w = 0; w < plan.window_count; ++w) per_channel = per_channel || plan.windows[w].per_channel;
  for (const Term& term : *call.terms) {
    const bool reads = std::find(term.inputs.begin(), term.inputs.end(), images.item) != term.inputs.end();
    if (term.kind != TermKind::kSquaredError || !reads) continue;
    squared = true;
    rows = rows || term.rows > 1;
  }
  const bool split = per_channel || (rows && images.channels > kMostChannelsOfBlock);
  if (split && images.channels > kMaxRows) {
    throw std::invalid_argument("windowed constraints of at most " + std::to_string(kMaxRows) +
                                " channels one by one, got " + std::to_string(images.channels));
  }
  plan.items[images.item].channels = static_cast<int>(split ? images.channels : 1);
  plan.strips.sums = plan.window_count + (!squared ? 0 : rows && !split ? static_cast<int>(images.channels) : 1);
}

// Lanes hold 1, 2 or 4 neighbouring columns. More of them make wider strips, of which less is halo, more independent
// arithmetic for a warp and fewer shuffles, but a warp then needs more shared memory for its rings: with patches of 8
// pixels 7, 14 or 28 KiB. A multiprocessor of sm_90 (228 KiB) then holds 2 blocks of 8 warps, 2 of 7, or 1 of 7; one of
// sm_80 (164 KiB) 2 of 8, 2 of 5, or 1 of 5. Of 1024 columns, strips of 64 make 1.33 times as many, with their halo,
// those of 128 1.14 times.
struct Choice {
  Strips strips;
  int warps_of_multiprocessor;
  double cost;  // in columns, were all warps busy
};

bool in_vectors(const Tensor& tensor, int columns) {
  if (!aligned(tensor, columns * size_of(tensor.type)) || tensor.strides[3] != 1) return false;
  return tensor.strides[0] % columns == 0 && tensor.strides[1] % columns == 0 && tensor.strides[2] % columns == 0;
}

// How an image is cut into columns; false where a strip would be all halo.
bool cut_columns(const Images& images, int largest_patch, Strips& strips) {
  const std::int64_t held = kWarpSize * strips.columns;
  // In float32 strips begin at whole vectors where images do.
  int step = !images.is_double() && images.width % strips.columns == 0 ? strips.columns : 1;
  if (images.width <= held) {
    strips.halo = 0;
    strips.step = static_cast<int>(images.width);
    strips.across = 1;
  } else {
    for (;; step = 1) {
      strips.halo = static_cast<int>(ceil_div(largest_patch - 1, step) * step);
      strips.step = static_cast<int>((held - strips.halo - (largest_patch - 1)) / step * step);
      if (strips.step > 0 || step == 1) break;
    }
    if (strips.step < 1) return false;
    strips.across = static_cast<int>(ceil_div(images.width - held, strips.step)) + 1;
  }
  strips.ring_columns = static_cast<int>(std::min(held, ceil_div(images.width, strips.columns) * strips.columns));
  const bool vectors = !images.is_double() && step == strips.columns;
  strips.prediction_in_vectors = vectors && in_vectors(images.input->prediction, strips.columns);
  strips.target_in_vectors = vectors && in_vectors(images.input->target, strips.columns);
  strips.gradient_in_vectors = vectors && images.input->gradient && in_vectors(images.input->gradient, strips.columns);
  return true;
}

// As many warps to a block as shared memory has rings for.
int warps_of_block(const Plan& plan, Strips strips, std::int64_t bytes) {
  strips.warps = 0;
  const std::int64_t fixed = window_memory(strips, plan.window_count).end;
  strips.warps = 1;
  const std::int64_t of_warp = window_memory(strips, plan.window_count).end - fixed + 16;
  return static_cast<int>(std::clamp<std::int64_t>((bytes - fixed) / of_warp, 0, kWarps));
}

// Of kernels with windows only those that are needed most: compiling them takes a while.
bool is_compiled(ImageTypes types, int columns) {
  return types == ImageTypes::kFloat32 || (types == ImageTypes::kDouble) == (columns == 2);
}

Choice choose(const Plan& plan, const Images& images, int largest_patch, const DeviceSize& device) {
  // Warps times columns of a multiprocessor that keep its four schedulers busy: arithmetic and shared memory answer
  // after 4 and 30 cycles.
  constexpr double kBusy = 24;
  Choice best{};
  best.cost = std::numeric_limits<double>::infinity();
  for (int columns : {1, 2, 4}) {
    if (!is_compiled(images.types, columns)) continue;
    Choice choice{plan.strips, 0, 0};
    choice.strips.columns = static_cast<std::int8_t>(columns);
    if (!cut_columns(images, largest_patch, choice.strips)) continue;
    for (int blocks = 1; blocks <= resident_window_blocks(images.is_double(), columns); ++blocks) {
      const std::int64_t bytes =
          std::min<std::int64_t>(device.shared_bytes / blocks - kReservedBytesOfBlock, device.shared_bytes_of_block);
      const int warps = warps_of_block(plan, choice.strips, bytes);
      if (blocks * warps <= choice.warps_of_multiprocessor) continue;
      choice.warps_of_multiprocessor = blocks * warps;
      choice.strips.warps = warps;
    }
    if (choice.warps_of_multiprocessor == 0) continue;
    choice.cost = static_cast<double>(choice.strips.across) * columns *
                  std::max(1.0, kBusy / (choice.warps_of_multiprocessor * columns));
    if (choice.cost < best.cost) best = choice;
  }
  if (best.warps_of_multiprocessor > 0) return best;
  throw std::invalid_argument("patches of " + std::to_string(largest_patch) + "x" + std::to_string(largest_patch) +
                              " pixels need more shared memory than the device has");
}

// Strips start with the rows of the patches above them. Taller ones have less of that, shorter ones fill the device;
// and a multiprocessor full of warps goes through a row about half as fast as one with few.
void cut_rows(const Images& images, int largest_patch, std::int64_t columns_of_strips, std::int64_t capacity,
              Strips& strips) {
  double least = std::numeric_limits<double>::infinity();
  for (std::int64_t parts = 1; parts <= images.height; parts += 1 + parts / 4) {
    const std::int64_t rows = ceil_div(images.height, parts), down = ceil_div(images.height, rows);
    const std::int64_t marched = std::min(images.height, rows + 2 * (largest_patch - 1));
    const double load = static_cast<double>(columns_of_strips * down) / static_cast<double>(capacity);
    const double cost = static_cast<double>(marched) * (load <= 1 ? 1 + load : 2 * std::ceil(load));
    if (cost >= least) continue;
    least = cost;
    strips.rows = static_cast<int>(rows);
    strips.down = static_cast<int>(down);
  }
}

// Makes an item the first one.
void move_to_front(int item, Plan& plan) {
  std::swap(plan.items[0], plan.items[item]);
  const auto moved = [item](int i) { return i == 0 ? item : i == item ? 0 : i; };
  for (int r = 0; r < plan.reading_count; ++r) plan.readings[r].item = moved(plan.readings[r].item);
}

}  // namespace

void plan_windows(const Call& call, const DeviceSize& device, Plan& plan) {
  const std::vector<int> terms = windowed_terms(call);
  if (terms.empty()) return;
  const Images images = images_of(call, terms);
  list_windows(call, images, terms, plan);
  split_channels(call, images, plan);

  move_to_front(images.item, plan);
  for (int i = 1; i < plan.item_count; ++i) {
    if (plan.items[i].prediction_type != plan.items[i].target_type) plan.items[i].vectorised_elements = 0;
  }
  Item& item = plan.items[0];
  int sums = 0, largest_patch = 1;
  for (int i = 0; i < plan.item_count; ++i) {
    sums += plan.items[i].channels * (i == 0 ? plan.strips.sums : 1);
  }
  for (int w = 0; w < plan.window_count; ++w) {
    const Window& window = plan.windows[w];
    if (!window.shares_statistics) plan.strips.ring_rows += ring_rows(window.size);
    largest_patch = std::max<int>(largest_patch, window.size);
  }
  plan.strips.images = images.types;
  plan.strips.shared_at = (kSharedHead + 8 * (sums + 2 * call.state.constraints) + 15) / 16 * 16;

  const Choice choice = choose(plan, images, largest_patch, device);
  plan.strips = choice.strips;
  const std::int64_t columns_of_strips = call.batch * item.channels * plan.strips.across;
  cut_rows(images, largest_patch, columns_of_strips,
           static_cast<std::int64_t>(choice.warps_of_multiprocessor) * device.multiprocessors, plan.strips);
  item.elements = call.batch * plan.strips.across * plan.strips.down;
  const std::int64_t most =
      std::max<std::int64_t>(1, kBlocksPerMultiprocessor * device.multiprocessors / item.channels);
  item.blocks = static_cast<int>(std::min(ceil_div(item.elements, plan.strips.warps), most));
}

std::int64_t most_window_partials(const DeviceSize& device) {
  const std::int64_t blocks = std::max<std::int64_t>(kMaxRows, kBlocksPerMultiprocessor * device.multiprocessors);
  return blocks * (kMaxTerms + kMostChannelsOfBlock);
}

}  // namespace geco::cuda
