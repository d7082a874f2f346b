/* embedded.h - the files of kernels/, as the library has them embedded: a new one needs its line
 * here. */
#ifndef SB_EMBEDDED_H
#define SB_EMBEDDED_H

#define EMBEDDED(X)                                                                                \
    X(conventional)                                                                                \
    X(gradient)                                                                                    \
    X(kl)                                                                                          \
    X(logprob)                                                                                     \
    X(order)                                                                                       \
    X(shards)                                                                                      \
    X(stats)

#endif
