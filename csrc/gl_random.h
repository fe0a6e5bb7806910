/* gl_random.h - random numbers as a pure function of a key and a counter: Philox4x32-10.
 *
 * Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.  Ten rounds over a
 * counter of four words; each round multiplies two of them by constants, exchanges halves of the products and mixes
 * in the key, to which two Weyl constants are added between rounds.
 *
 * There is no state to save or share: any number of a stream is had directly, and equal arguments give equal
 * numbers on every machine.  It will not serve as cryptography.
 */
#ifndef GL_RANDOM_H
#define GL_RANDOM_H

#include <stdint.h>
#include "gl_common.h" /* GL_INLINE */

struct gl_philox {
    uint32_t word[4];
};

GL_INLINE struct gl_philox gl_philox(struct gl_philox counter, uint32_t key0, uint32_t key1) {
    struct gl_philox x = counter;
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = (uint64_t)0xD2511F53 * x.word[0];
        uint64_t product1 = (uint64_t)0xCD9E8D57 * x.word[2];
        struct gl_philox next = {{(uint32_t)(product1 >> 32) ^ x.word[1] ^ key0, (uint32_t)product1,
                                  (uint32_t)(product0 >> 32) ^ x.word[3] ^ key1, (uint32_t)product0}};
        x = next;
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
    return x;
}

/* Uniform on the multiples of 2^-53 in [0, 1). */
GL_INLINE double gl_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
    struct gl_philox counter = {{(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}};
    struct gl_philox x = gl_philox(counter, (uint32_t)seed, (uint32_t)(seed >> 32));
    uint64_t bits = (uint64_t)x.word[1] << 32 | x.word[0];
    return (double)(int64_t)(bits >> 11) * 0x1p-53;
}

#endif
