/* embedded.h - the files of kernels/, as they are embedded in the library: EMBEDDED(X), where X
 * takes the name of a file and the list of its kernels. */
#ifndef SB_EMBEDDED_H
#define SB_EMBEDDED_H

#include "control/cuda.h"
#include "cuda/kernels.h"

#define EMBEDDED(X) SB_CUDA_MODULES(X) X(conventional, SB_CONVENTIONAL_KERNELS)

#endif
