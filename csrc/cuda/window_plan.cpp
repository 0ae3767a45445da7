#include "cuda/window_plan.h"

#include <algorithm>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cuda/elementwise_plan.h"
#include "cuda/window_memory.h"

namespace geco::cuda {
namespace {

// Channels whose elementwise constraints are told apart by a block that works on all of them; beyond that each channel
// has blocks of its own.
constexpr int kMostChannelsOfBlock = 8;

constexpr std::int64_t kMostPatchSize = 1 << 10;  // more than fits
constexpr std::int64_t kBlocksPerMultiprocessor = 12;
constexpr int kReservedBytesOfBlock = 1024;                          // by the driver
constexpr std::int64_t kMostBytesOfExample = std::int64_t{1} << 32;  // kernels for fixed sizes count them in 32 bits

struct Images {
  const Input* input;
  int operand;
  std::int64_t examples, channels, height, width;
  std::int64_t channels_apart;  // on which blocks work one by one
  ImageTypes types;
};

ImageTypes types_of(DataType a, DataType b) {
  if (a == DataType::kFloat64 || b == DataType::kFloat64) return ImageTypes::kDouble;
  return a == DataType::kFloat32 && b == DataType::kFloat32 ? ImageTypes::kFloat32 : ImageTypes::kFloat;
}

// One channel is all channels.
bool is_per_channel(const LossCall& call, const Constraint& constraint) {
  return constraint.patches.per_channel && call.inputs[constraint.inputs[0]].prediction.sizes[1] > 1;
}

std::tuple<bool, std::int64_t, std::int64_t> patches_of(const LossCall& call, const Constraint& constraint) {
  return {is_per_channel(call, constraint), constraint.patches.size, constraint.patches.stride};
}

// Terms with the same patches next to each other.
std::vector<int> windowed_constraints(const LossCall& call) {
  std::vector<int> found;
  for (int t = 0; t < static_cast<int>(call.constraints->size()); ++t) {
    if (is_windowed((*call.constraints)[t].kind)) found.push_back(t);
  }
  std::stable_sort(found.begin(), found.end(), [&](int a, int b) {
    return patches_of(call, (*call.constraints)[a]) < patches_of(call, (*call.constraints)[b]);
  });
  return found;
}

Images images_of(const LossCall& call, const std::vector<int>& constraints) {
  const int operand = (*call.constraints)[constraints[0]].inputs[0];
  for (int t : constraints) {
    if ((*call.constraints)[t].inputs[0] == operand) continue;
    throw std::invalid_argument("windowed constraints of one call read the same images");
  }
  const Input& input = call.inputs[operand];
  const Tensor& p = input.prediction;
  return {&input, operand, p.sizes[0], p.sizes[1], p.sizes[2], p.sizes[3], 1, types_of(p.type, input.target.type)};
}

void list_windows(const LossCall& call, const Images& images, const std::vector<int>& constraints, Plan& plan) {
  const std::int64_t longest = std::max(images.height, images.width);
  const Constraint* before = nullptr;
  for (int t : constraints) {
    const Constraint& constraint = (*call.constraints)[t];
    Window& window = plan.windows[plan.window_count++];
    window.eps = constraint.patches.eps;
    window.size = static_cast<std::int16_t>(std::min<std::int64_t>(constraint.patches.size, kMostPatchSize));
    window.stride =
        static_cast<int>(std::min(constraint.patches.stride, longest));  // beyond it there is one position only
    window.constraint = static_cast<std::int8_t>(t);
    window.per_channel = is_per_channel(call, constraint);
    window.shares_statistics = before != nullptr && patches_of(call, *before) == patches_of(call, constraint);
    before = &constraint;
  }
}

// Where any constraint has a value for each channel, blocks work on one channel each (statistics over all channels,
// should there be any, are then made once for each). Elementwise constraints of few channels need no such split.
void split_channels(const LossCall& call, const Images& images, Plan& plan) {
  bool per_channel = false, rows = false;
  for (int w = 0; w < plan.window_count; ++w) per_channel = per_channel || plan.windows[w].per_channel;
  for (const Constraint& constraint : *call.constraints) {
    const bool reads =
        std::find(constraint.inputs.begin(), constraint.inputs.end(), images.operand) != constraint.inputs.end();
    if (!is_elementwise(constraint.kind) || !reads) continue;
    rows = rows || constraint.rows > 1;
  }
  const bool split = per_channel || (rows && images.channels > kMostChannelsOfBlock);
  if (split && images.channels > kMaxRows) {
    throw std::invalid_argument("it takes the channels of at most " + std::to_string(kMaxRows) + " one by one, got " +
                                std::to_string(images.channels));
  }
  Operand& operand = plan.operands[images.operand];
  operand.channels = static_cast<int>(split ? images.channels : 1);
  plan.strips.of_measure = rows && !split ? static_cast<int>(images.channels) : 1;
  plan.strips.sums = plan.window_count + operand.measures * plan.strips.of_measure;
}

// Whether an example of each image can be counted in 32 bits.
bool in_bytes(const Images& images) {
  const auto fits = [](const Tensor& tensor) {
    std::int64_t last = 0;
    for (int d = 1; d < 4; ++d) last += (tensor.sizes[d] - 1) * tensor.strides[d];
    return (last + 1) * size_of(tensor.type) < kMostBytesOfExample;
  };
  return fits(images.input->prediction) && fits(images.input->target) &&
         (!images.input->gradient || fits(images.input->gradient));
}

// Whether rows of a tensor are vectors of `columns` numbers, of each channel or (interleaved) of all of them together.
bool in_vectors(const Tensor& tensor, int columns, bool interleaved) {
  const std::int64_t channels = tensor.sizes[1], size = size_of(tensor.type);
  if (!aligned(tensor, columns * size) || tensor.sizes[3] % columns != 0) return false;
  const std::int64_t column = interleaved ? channels : 1;
  if (tensor.strides[3] != column || (interleaved && tensor.strides[1] != 1)) return false;
  const bool starts = (tensor.sizes[0] == 1 || tensor.strides[0] % columns == 0) && tensor.strides[2] % columns == 0 &&
                      (interleaved || channels == 1 || tensor.strides[1] % columns == 0);
  return starts;
}

bool in_vectors(const Images& images, int columns, bool interleaved) {
  const Input& input = *images.input;
  return in_bytes(images) && in_vectors(input.prediction, columns, interleaved) &&
         in_vectors(input.target, columns, interleaved) &&
         (!input.gradient || in_vectors(input.gradient, columns, interleaved));
}

// Of the kernels that can do it, those with as much as possible fixed first.
std::vector<WindowKernel> kernels_for(const Plan& plan, const Images& images) {
  std::int16_t largest = 1, smallest = kMostPatchSize;
  bool joint = false;
  int groups = 0;
  for (int w = 0; w < plan.window_count; ++w) {
    const Window& window = plan.windows[w];
    largest = std::max(largest, window.size);
    smallest = std::min(smallest, window.size);
    joint = joint || (!window.per_channel && images.channels > 1);
    if (!window.shares_statistics) ++groups;
  }
  const bool split = plan.operands[images.operand].channels > 1;
  WindowKernel kernel{largest, groups > 1 ? smallest : std::int16_t{0}, 1, 4, false, images.types};
  if (joint) kernel.channels = static_cast<std::int8_t>(std::min<std::int64_t>(images.channels, 127));
  std::vector<WindowKernel> found;
  if (groups <= 1 + (largest != smallest) && !(split && joint)) {
    for (const bool interleaved : {false, true}) {
      for (const std::int8_t columns : {4, 1}) {
        kernel.interleaved = interleaved;
        kernel.columns = columns;
        const bool fits = columns == 1 ? !interleaved && in_bytes(images) : in_vectors(images, columns, interleaved);
        if (fits && is_compiled(kernel)) found.push_back(kernel);
      }
    }
  }
  const bool is_double = images.types == ImageTypes::kDouble;
  for (const std::int8_t columns : {4, 2, 1}) {
    const WindowKernel any{0, 0, 0, columns, false, is_double ? ImageTypes::kDouble : ImageTypes::kFloat};
    if (is_compiled(any) && columns <= smallest) found.push_back(any);
  }
  return found;
}

// How an image is cut into columns of strips; false where a strip would be all halo.
bool cut_columns(const Images& images, int largest_patch, Strips& strips) {
  const int columns = strips.kernel.columns;
  const std::int64_t held = kWarpSize * columns;
  strips.lanes = kWarpSize;
  strips.beside = 1;
  if (images.width <= held) {
    strips.halo = 0;
    strips.step = static_cast<int>(images.width);
    strips.across = 1;
    strips.lanes = static_cast<int>(ceil_div(images.width, columns));
    strips.beside = static_cast<int>(std::min<std::int64_t>(kWarpSize / strips.lanes, images.examples));
    return true;
  }
  // Strips begin at whole vectors, where rows are made of them.
  const int whole = strips.kernel.size == 0 ? 1 : columns;
  strips.halo = static_cast<int>(ceil_div(largest_patch - 1, whole) * whole);
  strips.step = static_cast<int>((held - strips.halo - (largest_patch - 1)) / whole * whole);
  if (strips.step < 1) return false;
  strips.across = static_cast<int>(ceil_div(images.width - held, strips.step)) + 1;
  return true;
}

// As many warps to a block as shared memory has rings for.
int warps_of_block(const Plan& plan, Strips strips, const DeviceSize& device) {
  const std::int64_t bytes =
      std::min<std::int64_t>(device.shared_bytes - kReservedBytesOfBlock, device.shared_bytes_of_block);
  strips.warps = 0;
  const std::int64_t fixed = window_memory(strips, plan.window_count).end;
  strips.warps = 1;
  const std::int64_t of_warp = window_memory(strips, plan.window_count).end - fixed + 16;
  return static_cast<int>(std::clamp<std::int64_t>((bytes - fixed) / of_warp, 0, kWarps));
}

// How long a multiprocessor takes for a row of strips when it has so many warps, where one takes 1: its four schedulers
// have the next warp's instructions to issue while one waits, up to a point. Measured on an H200, patches of 8: for
// large images 8 warps take 1.42 times as long as 4, and 5 to 7 warps 1.06, 1.12 and 1.25 times; for small ones 8 do
// better.
double time_of_row(std::int64_t warps) { return warps <= 4 ? 1.0 : 1.4 * static_cast<double>(ceil_div(warps, 8)); }

// Cuts the lines of strips for all warps; returns how long the longest takes, in rows. Each part of an image starts
// with the rows of the patches above it and ends with those below. Parts of equal height leave a warp one strip; parts
// of the whole line leave all warps the same.
double cut_line(const Images& images, int largest_patch, std::int64_t multiprocessors, Strips& strips) {
  const std::int64_t lines = strips.across * images.channels_apart;
  const std::int64_t images_of_line = ceil_div(images.examples, strips.beside);
  const std::int64_t capacity = strips.warps * multiprocessors;
  const std::int64_t halo = 2 * (largest_patch - 1);
  double least = std::numeric_limits<double>::infinity();
  const auto consider = [&](std::int64_t line, std::int64_t rows) {
    const std::int64_t parts = lines * ceil_div(images_of_line * line, rows);
    const double cost = static_cast<double>(rows + halo) * static_cast<double>(ceil_div(parts, capacity)) *
                        time_of_row(std::min<std::int64_t>(ceil_div(parts, multiprocessors), strips.warps));
    if (cost >= least) return;
    least = cost;
    strips.rows = static_cast<int>(rows);
    strips.line = static_cast<int>(line);
  };
  for (std::int64_t parts = 1; parts <= images.height; parts += 1 + parts / 8) {
    const std::int64_t rows = ceil_div(images.height, parts);
    consider(ceil_div(images.height, rows) * rows, rows);
  }
  // With a halo behind each image in the line, a share that goes on in the next image has as many rows less as that
  // costs.
  const std::int64_t shares = capacity / lines;  // of a line
  if (shares == 0) return least;
  const std::int64_t line = images.height + halo, share = ceil_div(images_of_line * line, shares);
  const double cost = static_cast<double>(share + halo) * time_of_row(strips.warps);
  if (share > halo && cost < least) {
    least = cost;
    strips.rows = static_cast<int>(std::min<std::int64_t>(share, std::numeric_limits<int>::max()));
    strips.line = static_cast<int>(line);
  }
  return least;
}

// How much longer a row takes with the kernels for any size, and with four columns to a lane instead of one: guesses
// that no machine code was counted for and no device has run.
double time_of_row(const WindowKernel& kernel) {
  return (kernel.size == 0 ? 3.0 : 1.0) * (kernel.columns == 1 ? 0.45 : 0.25 * (2 + kernel.columns / 2.0));
}

// As "4x4, 8x8".
std::string sizes_of_patches(const Plan& plan) {
  std::set<int> sizes;
  for (int w = 0; w < plan.window_count; ++w) sizes.insert(plan.windows[w].size);
  std::string text;
  for (int size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size) + "x" + std::to_string(size);
  return text;
}

Strips choose(const Plan& plan, const Images& images, int largest_patch, const DeviceSize& device) {
  Strips best{};
  double least = std::numeric_limits<double>::infinity();
  for (const WindowKernel& kernel : kernels_for(plan, images)) {
    Strips strips = plan.strips;
    strips.kernel = kernel;
    strips.ring_numbers = 0;
    for (int w = 0; w < plan.window_count; ++w) {
      const int size = plan.windows[w].size;
      if (plan.windows[w].shares_statistics) continue;
      strips.ring_numbers += kernel.size == 0 ? ring_numbers_of_any(size, kernel.columns)
                                              : ring_numbers_of_pairs(size, kernel.channels, kernel.columns);
    }
    if (!cut_columns(images, largest_patch, strips)) continue;
    const auto give_rings = [&] {
      strips.ring_lanes = kernel.size == 0 ? ring_lanes(strips.lanes * strips.beside) : kWarpSize;
      strips.warps = warps_of_block(plan, strips, device);
    };
    give_rings();
    if (strips.warps == 0 && kernel.size == 0 && strips.beside > 1) {
      strips.beside = 1;
      give_rings();
    }
    if (strips.warps == 0) continue;
    const double cost = cut_line(images, largest_patch, device.multiprocessors, strips) * time_of_row(kernel);
    if (cost >= least) continue;
    least = cost;
    best = strips;
  }
  if (best.warps > 0) return best;
  throw std::invalid_argument("patches of " + sizes_of_patches(plan) + " pixels need more shared memory than the " +
                              std::to_string(device.shared_bytes_of_block) + " bytes of a block");
}

// Makes an operand the first one.
void move_to_front(int operand, Plan& plan) {
  std::swap(plan.operands[0], plan.operands[operand]);
  const auto moved = [operand](int i) { return i == 0 ? operand : i == operand ? 0 : i; };
  for (int r = 0; r < plan.weighted_input_count; ++r)
    plan.weighted_inputs[r].operand = static_cast<std::int16_t>(moved(plan.weighted_inputs[r].operand));
}

}  // namespace

void plan_windows(const LossCall& call, const DeviceSize& device, Plan& plan) {
  const std::vector<int> constraints = windowed_constraints(call);
  if (constraints.empty()) return;
  if (call.batch == 0) throw std::invalid_argument("windowed constraints of an empty batch");
  Images images = images_of(call, constraints);
  list_windows(call, images, constraints, plan);
  split_channels(call, images, plan);

  move_to_front(images.operand, plan);
  for (int i = 1; i < plan.operand_count; ++i) {
    const Operand& other = plan.operands[i];
    const bool squared = plan.measures[other.first_measure].kind() == ConstraintKind::kSquaredError;
    if (other.operation == Operation::kElementwise && (other.measures > 1 || !squared)) {
      throw std::invalid_argument("beside windowed constraints it takes squared errors alone of other tensors");
    }
    if (other.prediction_type != other.target_type) plan.operands[i].vectorised_elements = 0;
  }
  Operand& operand = plan.operands[0];
  int sums = 0, largest_patch = 1;
  for (int i = 0; i < plan.operand_count; ++i) {
    sums += plan.operands[i].channels * (i == 0 ? plan.strips.sums : 1);
  }
  for (int w = 0; w < plan.window_count; ++w) largest_patch = std::max<int>(largest_patch, plan.windows[w].size);
  plan.strips.shared_at = (kSharedHead + 8 * (sums + 2 * call.state.constraints) + 15) / 16 * 16;
  images.operand = 0;
  images.channels_apart = operand.channels;

  plan.strips = choose(plan, images, largest_patch, device);
  Strips& strips = plan.strips;
  strips.length = ceil_div(call.batch, strips.beside) * strips.line;
  operand.elements = strips.across * ceil_div(strips.length, strips.rows);
  // Few strips are for as many multiprocessors as there are.
  const std::int64_t warps = ceil_div(operand.elements * operand.channels, device.multiprocessors);
  strips.warps = static_cast<int>(std::min<std::int64_t>(strips.warps, warps));
  const std::int64_t most =
      std::max<std::int64_t>(1, kBlocksPerMultiprocessor * device.multiprocessors / operand.channels);
  operand.blocks = static_cast<int>(std::min(ceil_div(operand.elements, strips.warps), most));
}

std::int64_t most_window_partials(const DeviceSize& device) {
  const std::int64_t blocks = std::max<std::int64_t>(kMaxRows, kBlocksPerMultiprocessor * device.multiprocessors);
  return blocks * (kMaxConstraints + kMaxMeasures * kMostChannelsOfBlock);
}

}  // namespace geco::cuda
