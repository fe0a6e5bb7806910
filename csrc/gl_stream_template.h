/* gl_stream_template.h - the kernels behind reductions and writers, written once for all levels.
 *
 * Parameter: GL_LEVEL_NAME(name), see gl_level_template.h.  Defines GL_STREAM_KERNELS, the initializer of the table's
 * `stream` member.  The loops are plain C; the target pragmas around them decide what they become.
 */

#define GL_STREAM_DEFINE(enumerator, name, storage)                                                                    \
    static void GL_LEVEL_NAME(gl_load_##name)(double *restrict out, const void *restrict src, int64_t n) {             \
        for (int64_t i = 0; i < n; i++)                                                                                \
            out[i] = gl_##name##_load(src, i);                                                                         \
    }                                                                                                                  \
    static void GL_LEVEL_NAME(gl_load_minus_##name)(double *restrict out, const void *restrict src, int64_t n) {       \
        for (int64_t i = 0; i < n; i++)                                                                                \
            out[i] -= gl_##name##_load(src, i);                                                                        \
    }                                                                                                                  \
    static void GL_LEVEL_NAME(gl_store_##name)(void *restrict dst, const double *restrict values, int64_t n) {         \
        for (int64_t i = 0; i < n; i++)                                                                                \
            gl_##name##_store(dst, i, values[i]);                                                                      \
    }                                                                                                                  \
    static double GL_LEVEL_NAME(gl_dot_##name)(const void *a, const void *b, int64_t n) {                              \
        double lane[GL_LANES] = {0};                                                                                   \
        int64_t i = 0;                                                                                                 \
        for (; i + GL_LANES <= n; i += GL_LANES)                                                                       \
            for (int l = 0; l < GL_LANES; l++)                                                                         \
                lane[l] += gl_##name##_load(a, i + l) * gl_##name##_load(b, i + l);                                    \
        for (int l = 0; i + l < n; l++)                                                                                \
            lane[l] += gl_##name##_load(a, i + l) * gl_##name##_load(b, i + l);                                        \
        return gl_fold(lane);                                                                                          \
    }
GL_DTYPES(GL_STREAM_DEFINE)
#undef GL_STREAM_DEFINE

static void GL_LEVEL_NAME(gl_displace)(double *restrict a, double scale, const double *restrict b, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        a[i] = scale * a[i] - b[i];
}

static void GL_LEVEL_NAME(gl_perturb)(double *restrict x, double c, const double *restrict delta, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        x[i] = x[i] + c * delta[i];
}

#define GL_STREAM_LOAD(enumerator, name, storage)       [enumerator] = GL_LEVEL_NAME(gl_load_##name),
#define GL_STREAM_LOAD_MINUS(enumerator, name, storage) [enumerator] = GL_LEVEL_NAME(gl_load_minus_##name),
#define GL_STREAM_STORE(enumerator, name, storage)      [enumerator] = GL_LEVEL_NAME(gl_store_##name),
#define GL_STREAM_DOT(enumerator, name, storage)        [enumerator] = GL_LEVEL_NAME(gl_dot_##name),
#define GL_STREAM_KERNELS                                                                                              \
    {                                                                                                                  \
        .load = {GL_DTYPES(GL_STREAM_LOAD)},                                                                           \
        .load_minus = {GL_DTYPES(GL_STREAM_LOAD_MINUS)},                                                               \
        .store = {GL_DTYPES(GL_STREAM_STORE)},                                                                         \
        .dot = GL_LEVEL_NAME(gl_dot_f64),                                                                              \
        .dot_stored = {GL_DTYPES(GL_STREAM_DOT)},                                                                      \
        .displace = GL_LEVEL_NAME(gl_displace),                                                                        \
        .perturb = GL_LEVEL_NAME(gl_perturb),                                                                          \
    }
