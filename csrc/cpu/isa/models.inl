// The kernels of models on a block of a call. Internal linkage as in vectors.inl.
#pragma once

#include "cpu/isa/elementary.inl"
#include "cpu/isa/kernels.h"
#include "cpu/isa/lanes.inl"
#include "math/coupling.h"
#include "math/gaussian.h"
#include "math/lstm.h"

#define GECO_INLINE __attribute__((always_inline))

namespace geco::cpu {
namespace {

// A row of a block, or the part of it that the block has.
struct RowPart {
  std::int64_t example, row, begin;

  template <class T>
  GECO_HD T* of(const Strided& operand) const {
    if (!operand) return nullptr;
    return static_cast<T*>(operand.data) + example * operand.batch_stride + row * operand.row_stride + begin;
  }
};

template <class T>
GECO_HD Vector<Computed<T>> number_of(const PerExample& numbers, std::int64_t example) {
  using Real = Computed<T>;
  return (numbers ? static_cast<const Real*>(numbers.data)[example * numbers.stride] : Real(0)) + Vector<Real>{};
}

// body(at, part) for each vector of a row.
template <class Real, class Body>
GECO_HD void along(std::int64_t begin, std::int64_t length, const Body& body) {
  std::int64_t at = begin;
  for (; at + kLanesOf<Real> <= length; at += kLanesOf<Real>) body(at, Whole{});
  if (at < length) body(at, First{length - at});
}

// The sum of what body(at, part) returns. A few of them are added in the vectors' own type and the rest in double: the
// rounding of a sum of any length stays that of a few additions. Beyond a row all inputs are read as zeros, of which
// no kernel here makes anything but zero.
template <class Real, class Body>
GECO_HD Doubles sum_along(std::int64_t length, const Body& body) {
  constexpr std::int64_t kTogether = 16 * kLanesOf<Real>;
  Doubles total = {};
  for (std::int64_t begin = 0; begin < length; begin += kTogether) {
    const std::int64_t end = length < begin + kTogether ? length : begin + kTogether;
    Vector<Real> sums = {};
    along<Real>(begin, end, [&](std::int64_t at, auto part) GECO_INLINE { sums += body(at, part); });
    total += folded(sums);
  }
  return total;
}

// of_row(row, length) for each row of the block, and what they return summed over each example.
template <class OfRow>
GECO_HD void sum_rows(const Block& block, double* sums, const OfRow& of_row) {
  for (std::int64_t example = 0; example < block.examples; ++example) {
    Doubles total = {};
    for (std::int64_t row = 0; row < block.rows; ++row) {
      total += of_row(RowPart{block.first_example + example, block.first_row + row, block.begin});
    }
    sums[example] = sum(total);
  }
}

template <class OfRow>
GECO_HD void each_row(const Block& block, const OfRow& of_row) {
  for (std::int64_t example = 0; example < block.examples; ++example) {
    for (std::int64_t row = 0; row < block.rows; ++row) {
      of_row(RowPart{block.first_example + example, block.first_row + row, block.begin});
    }
  }
}

template <class T, bool with_prior, class Part>
GECO_HD GaussianGap<Vector<Computed<T>>> gap_at(const T* q_mean, const T* q_log_std, const T* p_mean,
                                                const T* p_log_std, std::int64_t at, Part part) {
  using V = Vector<Computed<T>>;
  using Math = Elementary<Computed<T>>;
  const Gaussian<V> q{read(q_mean + at, part), read(q_log_std + at, part)};
  if constexpr (with_prior) {
    return gap_from_prior<Math>(q, Gaussian<V>{read(p_mean + at, part), read(p_log_std + at, part)});
  } else {
    return gap_from_standard<Math>(q);
  }
}

template <class T, bool with_prior>
void gaussian(const GaussianCall& call, const Block& block, double* sums) {
  using Real = Computed<T>;
  sum_rows(block, sums, [&](const RowPart& row) GECO_INLINE {
    const T *q_mean = row.of<T>(call.q_mean), *q_log_std = row.of<T>(call.q_log_std), *p_mean = row.of<T>(call.p_mean),
            *p_log_std = row.of<T>(call.p_log_std), *noise = row.of<T>(call.noise);
    T* z = row.of<T>(call.z);
    return sum_along<Real>(block.length, [&](std::int64_t at, auto part) GECO_INLINE {
      const auto gap = gap_at<T, with_prior>(q_mean, q_log_std, p_mean, p_log_std, at, part);
      const auto sample = gaussian_sample<Elementary<Real>>(read(q_mean + at, part), read(noise + at, part), gap);
      write(z + at, sample.z, part);
      return sample.kl;
    });
  });
}

template <class T, bool with_prior>
void gaussian_backward(const GaussianBackwardCall& call, const Block& block, double*) {
  using Real = Computed<T>;
  each_row(block, [&](const RowPart& row) GECO_INLINE {
    const T *q_mean = row.of<T>(call.q_mean), *q_log_std = row.of<T>(call.q_log_std), *p_mean = row.of<T>(call.p_mean),
            *p_log_std = row.of<T>(call.p_log_std), *noise = row.of<T>(call.noise), *grad_z = row.of<T>(call.grad_z);
    T *of_q_mean = row.of<T>(call.of_q_mean), *of_q_log_std = row.of<T>(call.of_q_log_std),
      *of_p_mean = row.of<T>(call.of_p_mean), *of_p_log_std = row.of<T>(call.of_p_log_std);
    const auto of_kl = number_of<T>(call.grad_kl, row.example);
    along<Real>(0, block.length, [&](std::int64_t at, auto part) GECO_INLINE {
      const auto gap = gap_at<T, with_prior>(q_mean, q_log_std, p_mean, p_log_std, at, part);
      const auto gradients =
          gaussian_gradients<Elementary<Real>>(read_or_zero(grad_z, at, part), of_kl, read(noise + at, part), gap);
      write(of_q_mean + at, gradients.q_mean, part);
      write(of_q_log_std + at, gradients.q_log_std, part);
      if constexpr (with_prior) {
        write(of_p_mean + at, gradients.p_mean, part);
        write(of_p_log_std + at, gradients.p_log_std, part);
      }
    });
  });
}

template <class T, class Part>
GECO_HD Gates<Vector<Computed<T>>> read_gates(const T* from, std::int64_t apart, Part part) {
  return {read(from, part), read(from + apart, part), read(from + 2 * apart, part), read(from + 3 * apart, part)};
}

template <class T>
void gates(const GatesCall& call, const Block& block, double*) {
  using Real = Computed<T>;
  const std::int64_t apart = call.extent.inner;
  each_row(block, [&](const RowPart& row) GECO_INLINE {
    const T *gates = row.of<T>(call.gates), *cell = row.of<T>(call.cell);
    T *hidden = row.of<T>(call.hidden), *new_cell = row.of<T>(call.new_cell);
    along<Real>(0, block.length, [&](std::int64_t at, auto part) GECO_INLINE {
      const auto next = lstm_gates<Elementary<Real>>(read_gates(gates + at, apart, part), read(cell + at, part));
      write(hidden + at, next.hidden, part);
      write(new_cell + at, next.cell, part);
    });
  });
}

template <class T>
void gates_backward(const GatesBackwardCall& call, const Block& block, double*) {
  using Real = Computed<T>;
  const std::int64_t apart = call.extent.inner;
  each_row(block, [&](const RowPart& row) GECO_INLINE {
    const T *gates = row.of<T>(call.gates), *cell = row.of<T>(call.cell), *grad_hidden = row.of<T>(call.grad_hidden),
            *grad_cell = row.of<T>(call.grad_cell);
    T *of_gates = row.of<T>(call.of_gates), *of_cell = row.of<T>(call.of_cell);
    along<Real>(0, block.length, [&](std::int64_t at, auto part) GECO_INLINE {
      const auto gradients =
          lstm_gradients<Elementary<Real>>(read_or_zero(grad_hidden, at, part), read_or_zero(grad_cell, at, part),
                                           read_gates(gates + at, apart, part), read(cell + at, part));
      write(of_gates + at, gradients.gates.input, part);
      write(of_gates + at + apart, gradients.gates.forget, part);
      write(of_gates + at + 2 * apart, gradients.gates.candidate, part);
      write(of_gates + at + 3 * apart, gradients.gates.output, part);
      write(of_cell + at, gradients.cell, part);
    });
  });
}

template <class T, bool inverse>
void coupling(const CouplingCall& call, const Block& block, double* sums) {
  using Real = Computed<T>;
  sum_rows(block, sums, [&](const RowPart& row) GECO_INLINE {
    const T *x = row.of<T>(call.x), *log_scale = row.of<T>(call.log_scale), *shift = row.of<T>(call.shift);
    T* y = row.of<T>(call.y);
    return sum_along<Real>(block.length, [&](std::int64_t at, auto part) GECO_INLINE {
      const auto transformed = affine_coupling<inverse, Elementary<Real>>(
          read(x + at, part), read(log_scale + at, part), read(shift + at, part));
      write(y + at, transformed.y, part);
      return transformed.log_det;
    });
  });
}

template <class T, bool inverse>
void coupling_backward(const CouplingBackwardCall& call, const Block& block, double*) {
  using Real = Computed<T>;
  each_row(block, [&](const RowPart& row) GECO_INLINE {
    const T *grad_y = row.of<T>(call.grad_y), *value = row.of<T>(call.value), *log_scale = row.of<T>(call.log_scale);
    T *of_x = row.of<T>(call.of_x), *of_log_scale = row.of<T>(call.of_log_scale);
    T* of_shift = row.of<T>(call.of_shift);
    const auto of_log_det = number_of<T>(call.grad_log_det, row.example);
    along<Real>(0, block.length, [&](std::int64_t at, auto part) GECO_INLINE {
      const auto gradients = coupling_gradients<inverse, Elementary<Real>>(
          read_or_zero(grad_y, at, part), of_log_det, read(value + at, part), read(log_scale + at, part));
      write(of_x + at, gradients.x, part);
      write(of_log_scale + at, gradients.log_scale, part);
      if constexpr (inverse) write(of_shift + at, -gradients.x, part);
    });
  });
}

}  // namespace
}  // namespace geco::cpu

#undef GECO_INLINE
