// The entry points that Python calls through ctypes. Each returns nullptr, or what went wrong.
#include <exception>
#include <string>

#include "attend.h"
#include "backward.h"

namespace {

using namespace genkit;

template <typename F>
const char* guarded(const F& f) {
  static thread_local std::string message;
  try {
    f();
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

template <Mode mode>
const char* attend(const Problem* p, int bfloat16) {
  return guarded([&] {
    if (bfloat16)
      Attend<BFloat16, mode>(*p).run();
    else
      Attend<float, mode>(*p).run();
  });
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default"))) const char*

EXPORT genkit_forward(const Problem* p, int bfloat16) {
  return attend<Mode::forward>(p, bfloat16);
}

EXPORT genkit_tangent(const Problem* p, int bfloat16) {
  return attend<Mode::tangent>(p, bfloat16);
}

EXPORT genkit_both(const Problem* p, int bfloat16) {
  return attend<Mode::both>(p, bfloat16);
}

EXPORT genkit_backward(const Problem* p, int bfloat16) {
  return guarded([&] {
    if (bfloat16)
      Backward<BFloat16>(*p).run();
    else
      Backward<float>(*p).run();
  });
}

// Whether torch's matrix products of this type run on this processor.
EXPORT genkit_probe(const Problem*, int bfloat16) {
  return guarded([&] {
    alignas(64) float c[32 * 32];
    auto probe = [&](auto zero) {
      alignas(64) decltype(zero) x[32 * 32] = {};
      product(32, 32, 32, 32, 32, 32, false, x, x, c);
    };
    if (bfloat16)
      probe(BFloat16());
    else
      probe(float());
    at::native::cpublas::brgemm_release();
  });
}
