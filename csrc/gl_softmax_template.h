/* gl_softmax_template.h - the kernels behind softmax and its curvature, written once for all levels.
 *
 * Parameter: GL_LEVEL_NAME(name), see gl_level_template.h.  Defines GL_SOFTMAX_KERNELS, the initializer of the table's
 * `softmax` member.  Sums run in GL_LANES lanes that gl_fold folds, as in gl_stream_template.h.
 */

static double GL_LEVEL_NAME(gl_max)(const double *values, int64_t n) {
    double lane[GL_LANES];
    for (int l = 0; l < GL_LANES; l++)
        lane[l] = -INFINITY;
    for (int64_t i = 0; i < n; i += GL_LANES)
        for (int l = 0; l < GL_LANES; l++)
            lane[l] = values[i + l] > lane[l] ? values[i + l] : lane[l];
    double max = lane[0];
    for (int l = 1; l < GL_LANES; l++)
        max = lane[l] > max ? lane[l] : max;
    return max;
}

static void GL_LEVEL_NAME(gl_exp_below)(double *z, double top, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        z[i] = gl_exp_bound(z[i] - top);
    for (int64_t i = 0; i < n; i++)
        z[i] = gl_exp_within(z[i]);
}

static double GL_LEVEL_NAME(gl_sum)(const double *values, int64_t n) {
    double lane[GL_LANES] = {0};
    for (int64_t i = 0; i < n; i += GL_LANES)
        for (int l = 0; l < GL_LANES; l++)
            lane[l] += values[i + l];
    return gl_fold(lane);
}

static void GL_LEVEL_NAME(gl_scale_where)(double *restrict u, const double *restrict e, double scale, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double scaled = u[i] * scale;
        u[i] = e[i] == 0 ? 0 : scaled;
    }
}

static double GL_LEVEL_NAME(gl_spread)(const double *e, const double *u, double centre, int64_t n) {
    double lane[GL_LANES] = {0};
    for (int64_t i = 0; i < n; i += GL_LANES)
        for (int l = 0; l < GL_LANES; l++) {
            double offset = u[i + l] - centre;
            lane[l] += e[i + l] * (offset * offset);
        }
    return gl_fold(lane);
}

#define GL_SOFTMAX_KERNELS                                                                                             \
    {                                                                                                                  \
        .max = GL_LEVEL_NAME(gl_max),                                                                                  \
        .exp = GL_LEVEL_NAME(gl_exp_below),                                                                            \
        .sum = GL_LEVEL_NAME(gl_sum),                                                                                  \
        .scale_where = GL_LEVEL_NAME(gl_scale_where),                                                                  \
        .spread = GL_LEVEL_NAME(gl_spread),                                                                            \
    }
