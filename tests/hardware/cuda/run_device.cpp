// What calls leave behind on a device and in a thread, with the shim in the driver's place. Exits 1 where it is too
// much.

#include <cstdio>
#include <cstdlib>
#include <string>

#include "cuda/device.h"
#include "cuda/step.h"

using geco::cuda::DeviceGuard;

namespace {

void expect(bool condition, const char* what) {
  if (condition) return;
  std::printf("not so: %s\n", what);
  std::exit(1);
}

shim::Context context_of(int device) { return &shim::numbers_of_devices[device]; }

// A thread that has not used any device: no context is current, and the runtime speaks of device 0.
void in_a_new_thread() {
  shim::context = nullptr;
  shim::has_context[0] = shim::has_context[1] = false;
}

void a_guard_leaves_what_it_found() {
  in_a_new_thread();
  {
    const DeviceGuard guard(1);
    expect(shim::context == context_of(1), "the device is current inside");
  }
  expect(shim::context == nullptr, "no context is current again");
  expect(!shim::has_context[0], "device 0, which nobody uses, has no context");

  shim::context = context_of(0);
  {
    const DeviceGuard guard(1);
  }
  expect(shim::context == context_of(0), "the context that was current is so again");
  {
    const DeviceGuard guard(0);
  }
  expect(shim::context == context_of(0), "the current device is left alone");
}

void availability_makes_no_context() {
  in_a_new_thread();
  expect(geco::cuda::capability_of(1).major == 9 && geco::cuda::driver_version() == 13000, "what the shim says");
  expect(!shim::has_context[0] && !shim::has_context[1], "no device has a context");
  expect(geco::cuda::device_problem(1).empty(), "device 1 runs the kernels");
  expect(shim::has_context[1] && !shim::has_context[0], "only the one that was asked has a context");
}

void a_busy_device_is_a_reason() {
  in_a_new_thread();
  shim::is_busy[1] = true;
  const std::string problem = geco::cuda::device_problem(1);
  expect(problem.find("cudaSetDevice(1)") == 0, "the reason says what failed");
  expect(shim::context == nullptr, "no context is current");
  expect(shim::last_error == 0, "the next launch is not blamed for it");
  shim::is_busy[1] = false;
  expect(geco::cuda::device_problem(1).empty(), "nothing is left of it");
}

void a_failed_check_clears_its_error() {
  shim::last_error = cudaErrorDevicesUnavailable;
  try {
    geco::cuda::check(cudaErrorDevicesUnavailable, "a call");
    expect(false, "a failed check throws");
  } catch (const std::runtime_error& error) {
    expect(std::string(error.what()).find("a call: ") == 0, "the error says what failed");
  }
  expect(cudaGetLastError() == cudaSuccess, "the runtime has forgotten it");
}

}  // namespace

int main() {
  a_guard_leaves_what_it_found();
  availability_makes_no_context();
  a_busy_device_is_a_reason();
  a_failed_check_clears_its_error();
  return 0;
}
