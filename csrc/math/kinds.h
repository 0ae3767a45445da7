// The kinds of constraint that kernels compute, each listed once: a new one is a line here, and its formula. Windowed
// kinds are listed beside their formulas (math/patch.h).
// Python compares its own tables with these when it loads the extension (backends/native.py, differing_tables).
#pragma once

#include "math/elementwise.h"
#include "math/macros.h"
#include "math/patch.h"

namespace geco {

// What a tolerance kappa means: the scale s of the constraint, and the constraint C <= 0 of a measured value m, which
// grows with m (sign 1) or falls (sign -1). Formulas: math/multiplier.h.
//   enumerator, name, sign                  s            C
#define GECO_SCALE_RULES(X)                                       \
  X(kKappaSquared, "kappa^2", 1)   /* kappa^2      m - kappa^2 */ \
  X(kOneMinusKappa, "1-kappa", -1) /* 1 - kappa    kappa - m   */ \
  X(kOwn, "own", 1)                /* see there    m           */ \
  X(kKappa, "kappa", 1)            /* kappa        m - kappa   */

// What D of the natural multiplier lambda* = D / (2 s) counts.
//   enumerator, name
#define GECO_ELEMENT_RULES(X)                                                          \
  X(kOfInputs, "inputs")            /* numbers of an example of its inputs, per row */ \
  X(kTwiceOfInputs, "2 inputs")     /* twice as many, see math/elementwise.h        */ \
  X(kOfImage, "image")              /* numbers of an example of x_hat               */ \
  X(kOfPositions, "2 per position") /* a mean and a deviation for each patch        */

//   enumerator, name in Python, scale rule, is it windowed (statistics of patches), element rule
// Those that compare number by number are listed beside their formulas, in math/elementwise.h.
#define GECO_CONSTRAINT_KINDS(X)                                       \
  GECO_ELEMENTWISE_KINDS(X)                                            \
  X(kSimilarity, "scalar_similarity", kOneMinusKappa, false, kOfImage) \
  X(kScalar, "scalar", kOwn, false, kOfImage)                          \
  GECO_WINDOWED_KINDS(X)

#define GECO_ENUMERATOR(enumerator, ...) enumerator,
enum class ScaleRule : int { GECO_SCALE_RULES(GECO_ENUMERATOR) };
enum class ElementRule : int { GECO_ELEMENT_RULES(GECO_ENUMERATOR) };
enum class ConstraintKind : int { GECO_CONSTRAINT_KINDS(GECO_ENUMERATOR) };
#undef GECO_ENUMERATOR

#define GECO_CASE(enumerator, name, sign) \
  case ScaleRule::enumerator: return sign;
// Of the measured value in the constraint.
GECO_HD constexpr double sign_of_measured(ScaleRule rule) {
  switch (rule) { GECO_SCALE_RULES(GECO_CASE) }
  return 0;
}
#undef GECO_CASE

#define GECO_CASE(enumerator, name, scale, windowed, elements, ...) \
  case ConstraintKind::enumerator: return ScaleRule::scale;
GECO_HD constexpr ScaleRule scale_rule(ConstraintKind kind) {
  switch (kind) { GECO_CONSTRAINT_KINDS(GECO_CASE) }
  return ScaleRule::kOwn;
}
#undef GECO_CASE

#define GECO_CASE(enumerator, name, scale, windowed, elements, ...) \
  case ConstraintKind::enumerator: return windowed;
GECO_HD constexpr bool is_windowed(ConstraintKind kind) {
  switch (kind) { GECO_CONSTRAINT_KINDS(GECO_CASE) }
  return false;
}
#undef GECO_CASE

#define GECO_CASE(enumerator, name, scale, windowed, elements, ...) \
  case ConstraintKind::enumerator: return ElementRule::elements;
GECO_HD constexpr ElementRule element_rule(ConstraintKind kind) {
  switch (kind) { GECO_CONSTRAINT_KINDS(GECO_CASE) }
  return ElementRule::kOfImage;
}
#undef GECO_CASE

// Whether it compares its inputs number by number (math/elementwise.h).
GECO_HD constexpr bool is_elementwise(ConstraintKind kind) {
  return element_rule(kind) == ElementRule::kOfInputs || element_rule(kind) == ElementRule::kTwiceOfInputs;
}

// Whether PyTorch computes what it measures: a number, or one for each example, whose mean is taken.
GECO_HD constexpr bool is_scalar(ConstraintKind kind) { return !is_windowed(kind) && !is_elementwise(kind); }

// Calls visit(formula) with the formula of a windowed kind. Where it stands outside a loop, the loop has no branch.
#define GECO_CASE(enumerator, name, scale, windowed, elements, Formula) \
  case ConstraintKind::enumerator: return visit(Formula<Math>{});
template <class Math, class Visit>
GECO_HD void with_formula_of(ConstraintKind kind, const Visit& visit) {
  switch (kind) {
    GECO_WINDOWED_KINDS(GECO_CASE)
    default: __builtin_unreachable();
  }
}
#undef GECO_CASE

// The kind that a formula is of.
#define GECO_KIND_OF(enumerator, name, scale, windowed, elements, Formula) \
  template <class Math>                                                    \
  GECO_HD constexpr ConstraintKind kind_of(const Formula<Math>&) {         \
    return ConstraintKind::enumerator;                                     \
  }
GECO_WINDOWED_KINDS(GECO_KIND_OF)
#undef GECO_KIND_OF

}  // namespace geco
