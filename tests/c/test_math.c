/* test_math.c - gl_exp against long double, and Philox against its published vectors.
 *
 * Bounds: gl_exp within 2 ulp (found: 0.96 at most).  The long double exp of the C library errs by less than 2^-11 ulp
 * of double where long double has 64 bits; where it is plain double, half an ulp more is granted to it.
 */
#define _DEFAULT_SOURCE
#include <float.h>
#include "gl_test.h"
#include "gl_fpenv.h"
#include "gl_math.h"
#include "gl_random.h"

static double worst;

static void check_exp(double x) {
    long double exact = expl((long double)x);
    double result = gl_exp(x), nearest = (double)exact;
    int exponent;
    frexp(nearest, &exponent);
    long double ulp = ldexpl(1, exponent - 53 > -1074 ? exponent - 53 : -1074);
    double error = (double)(fabsl((long double)result - exact) / ulp);
    worst = error > worst ? error : worst;
    CHECK(error < (LDBL_MANT_DIG > 53 ? 2.0 : 2.5), "exp(%a) = %a, %g ulp off", x, result, error);
}

static void test_exp_accuracy(void) {
    for (int i = 0; i < 400000; i++) {
        check_exp(test_uniform());
        check_exp(ldexp(test_uniform(), -(int)(test_bits() % 60)));
        check_exp(709 * test_uniform());
        check_exp(-745 + 40 * fabs(test_uniform())); /* denormal results among them */
    }
    for (int k = -1074; k < 1024; k++) { /* where the reduction changes from one k to the next */
        double edge = (k + 0.5) * 0.693147180559945309;
        check_exp(edge);
        check_exp(nextafter(edge, 1000));
        check_exp(nextafter(edge, -1000));
    }
    printf("exp: worst error %.3f ulp\n", worst);
}

static void test_exp_special(void) {
    CHECK(gl_exp(0.0) == 1 && gl_exp(-0.0) == 1, "exp(0)");
    CHECK(gl_exp(-INFINITY) == 0 && gl_exp(-1e300) == 0 && gl_exp(-746) == 0, "exp of large negative numbers");
    CHECK(gl_exp(-745.2) == 0 && gl_exp(-745.1) == 0x1p-1074, "the last denormal");
    CHECK(isinf(gl_exp(INFINITY)) && isinf(gl_exp(1e300)) && isinf(gl_exp(709.79)), "overflow");
    CHECK(gl_exp(709.78) < INFINITY, "the last finite result");
    CHECK(isnan(gl_exp(NAN)) && isnan(gl_exp(-(double)NAN)), "NaN");
}

/* The levels' kernels call the same text in vectorised loops. */
static void test_exp_bits(void) {
    double x[GL_DTYPE_COUNT * 512];
    int n = (int)(sizeof x / sizeof *x);
    for (int i = 0; i < n; i++)
        x[i] = 800 * test_uniform();
    for (int i = 0; i < n; i++) {
        double bounded = gl_exp_bound(x[i]);
        volatile double alone = x[i];
        CHECK(test_same(gl_exp_within(bounded), gl_exp(alone)), "exp(%a) in two steps", x[i]);
    }
}

/* kat_vectors of the Random123 distribution, philox4x32 with 10 rounds. */
static void test_philox(void) {
    static const struct {
        uint32_t counter[4], key[2], result[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct gl_philox counter;
        memcpy(counter.word, known[i].counter, sizeof counter.word);
        struct gl_philox x = gl_philox(counter, known[i].key[0], known[i].key[1]);
        CHECK(memcmp(x.word, known[i].result, sizeof x.word) == 0, "known answer %zu", i);
    }
}

static void test_uniforms(void) {
    double sum = 0, squares = 0;
    int n = 1 << 20;
    for (int i = 0; i < n; i++) {
        double u = gl_uniform(7, 1, (uint64_t)i);
        CHECK(u >= 0 && u < 1, "%g lies outside [0, 1)", u);
        sum += u;
        squares += u * u;
    }
    /* Five standard deviations: sqrt(1/12), and sqrt(1/5 - 1/9), over sqrt n. */
    CHECK(fabs(sum / n - 0.5) < 5 * 0.2887 / sqrt(n), "mean %g", sum / n);
    CHECK(fabs(squares / n - 1 / 3.0) < 5 * 0.2982 / sqrt(n), "mean square %g", squares / n);
    CHECK(gl_uniform(1, 2, 3) != gl_uniform(2, 2, 3) && gl_uniform(1, 2, 3) != gl_uniform(1, 3, 3) &&
              gl_uniform(1, 2, 3) != gl_uniform(1, 2, 4),
          "seed, stream and index all matter");
    CHECK(gl_uniform(1ull << 40, 2, 3) != gl_uniform(0, 2, 3) && gl_uniform(1, 2, 3ull << 33) != gl_uniform(1, 2, 0),
          "upper halves matter");
}

int main(void) {
    gl_fpenv saved = gl_fpenv_enter();
    test_exp_accuracy();
    test_exp_special();
    test_exp_bits();
    test_philox();
    test_uniforms();
    gl_fpenv_leave(saved);
    return test_finish("test_math");
}
