#pragma once

// Private: compiles a function once per instruction set; the loader picks the best that the processor has. Loops that
// it calls must be inlined into it. Sanitizers instrument the choice before they are ready for it. No LibTorch.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define AFM_VECTORIZED __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define AFM_VECTORIZED
#endif
