/* Integrate-and-fire neurons in C, checked against a golden file: an example for ports of refsnn.
 *
 *     cc -O2 -std=c11 -Wall -Wextra -Werror integrate_and_fire.c -o integrate_and_fire
 *     ./integrate_and_fire GOLDEN.safetensors
 *
 * The neuron:  u[t] = leak * (u[t-1] - vth * s[t-1]) + I[t],   s[t] = 1 if u[t] >= vth * (1 - tie), else 0,
 * and what is left before the first step is u0 * vth.
 *
 * The file: 8 bytes, little-endian, the length of a JSON header; the header {NAME: {"dtype", "shape", "data_offsets"}};
 * the numbers. Used are "input/current" and "output/spikes", (T, ...) in F64 or F32, and "constant/vth",
 * "constant/leak", "constant/u0" and "constant/tie", one F64 each.
 *
 * Exit: 0 all spikes are equal; 1 one differs, the first is printed; 2 the file cannot be used, and why. */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* round the product before the sum, as NumPy does; GCC does so under -std=c11 */
#endif

enum { RANK = 8 };
typedef struct { unsigned char *bytes; size_t size; } File;
typedef struct { const char *at, *end; } Json; /* what is still to be read of the header */
typedef struct { size_t rank, shape[RANK], count, width; const unsigned char *bytes; } Tensor;
static const char *path = "integrate_and_fire";

static _Noreturn void fail(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fprintf(stderr, "%s: ", path);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    exit(2);
}

static File read_file(void) {
    File all = {NULL, 0};
    size_t room = 0, got = 0;
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot be opened");
    do {
        all.size += got;
        if (all.size == room && !(all.bytes = realloc(all.bytes, room = 2 * room + 4096))) fail("is too large");
    } while ((got = fread(all.bytes + all.size, 1, room - all.size, file)) > 0);
    if (ferror(file) || fclose(file)) fail("cannot be read");
    return all;
}

static char next(Json *json) { /* the next character that is not a space; it is not consumed */
    while (json->at < json->end && memchr(" \t\r\n", *json->at, 4)) json->at++;
    if (json->at == json->end) fail("the header ends too early");
    return *json->at;
}

static bool accept(Json *json, char c) { return next(json) == c && json->at++; }
static void expect(Json *json, char c) {
    if (!accept(json, c)) fail("the header is damaged: a %c was expected", c);
}

static void string(Json *json, char *text, size_t room) { /* too long a string is none of ours: returned empty */
    size_t n = 0;
    expect(json, '"');
    while (json->at < json->end && *json->at != '"') {
        char c = *json->at++; /* of the escapes, our names could only have these three */
        if (c == '\\' && json->at < json->end && !memchr("/\"\\", c = *json->at++, 3)) c = '?';
        if (n < room) text[n++] = c;
    }
    expect(json, '"');
    text[n < room ? n : 0] = '\0';
}

static size_t numbers(Json *json, size_t *values, size_t room) {
    size_t n = 0;
    expect(json, '[');
    if (accept(json, ']')) return 0;
    do {
        char c = next(json);
        if (n == room || c < '0' || c > '9') fail("the header is damaged: a list of numbers is none");
        for (values[n] = 0; json->at < json->end && *json->at >= '0' && *json->at <= '9'; json->at++) {
            if (values[n] > SIZE_MAX / 10 - 1) fail("the header has too large a number");
            values[n] = 10 * values[n] + (size_t)(*json->at - '0');
        }
        n++;
    } while (accept(json, ','));
    expect(json, ']');
    return n;
}

static void skip_value(Json *json) { /* strings are read as such: what they contain is never taken for structure */
    char text[1];
    size_t depth = 0;
    do {
        char c = next(json);
        if (c == '"') string(json, text, sizeof text);
        else if (!depth && memchr(",:]}", c, 4)) fail("the header is damaged: a %c where a value was expected", c);
        else json->at++, depth += c == '{' || c == '[', depth -= c == '}' || c == ']';
    } while (depth);
    while (json->at < json->end && !memchr(",:]}", *json->at, 4)) json->at++; /* the rest of a number, true, null */
}

static Tensor entry(Json *json, const char *name, const unsigned char *data, size_t size) {
    Tensor tensor = {.count = 1};
    char key[16], dtype[16] = "";
    size_t at[2], shaped = 0, placed = 0;
    expect(json, '{');
    do {
        string(json, key, sizeof key);
        expect(json, ':');
        if (!strcmp(key, "dtype")) string(json, dtype, sizeof dtype);
        else if (!strcmp(key, "shape")) tensor.rank = numbers(json, tensor.shape, RANK), shaped = 1;
        else if (!strcmp(key, "data_offsets")) placed = numbers(json, at, 2);
        else skip_value(json);
    } while (accept(json, ','));
    expect(json, '}');
    if (!shaped || placed != 2) fail("%s has no shape or no data_offsets", name);
    tensor.width = !strcmp(dtype, "F64") ? 8 : !strcmp(dtype, "F32") ? 4 : 0;
    if (!tensor.width) fail("%s has dtype %s, not F64 or F32", name, dtype);
    if (at[0] > at[1] || at[1] > size)
        fail("%s lies at bytes %zu to %zu of %zu: the file is cut off or damaged", name, at[0], at[1], size);
    for (size_t i = 0; i < tensor.rank; i++) {
        if (tensor.shape[i] && tensor.count > SIZE_MAX / 8 / tensor.shape[i]) fail("%s has too large a shape", name);
        tensor.count *= tensor.shape[i];
    }
    if (tensor.count * tensor.width != at[1] - at[0]) fail("%s does not have the bytes that its shape needs", name);
    tensor.bytes = data + at[0];
    return tensor;
}

static Tensor find(File file, const char *name) {
    uint64_t length = 0;
    if (file.size < 8) fail("is too short for a safetensors file");
    for (int i = 7; i >= 0; i--) length = length << 8 | file.bytes[i];
    if (length > file.size - 8) fail("ends before its header does");
    const unsigned char *data = file.bytes + 8 + length;
    Json json = {(const char *)file.bytes + 8, (const char *)data};
    char key[64];
    expect(&json, '{');
    do {
        string(&json, key, sizeof key);
        expect(&json, ':');
        if (!strcmp(key, name)) return entry(&json, name, data, file.size - 8 - (size_t)length);
        skip_value(&json);
    } while (accept(&json, ','));
    fail("has no tensor %s", name);
}

static double element(Tensor tensor, size_t i) { /* byte by byte: the file is little-endian, whatever the machine is */
    uint64_t bits = 0;
    for (size_t k = tensor.width; k-- > 0;) bits = bits << 8 | tensor.bytes[i * tensor.width + k];
    if (tensor.width == 8) return *(double *)memcpy(&(double){0}, &bits, 8);
    return *(float *)memcpy(&(float){0}, &(uint32_t){(uint32_t)bits}, 4);
}

static double constant(File file, const char *name) {
    Tensor tensor = find(file, name);
    if (tensor.count != 1 || tensor.width != 8) fail("%s is not one F64 number", name);
    return element(tensor, 0);
}

/* A sum or product of two floats, computed in double and then rounded to float, is what float arithmetic gives. */
static double rounded(double x, bool single) { return single ? (double)(float)x : x; }

int main(int argc, char **argv) {
    if (argc != 2) fail("name one golden file: integrate_and_fire GOLDEN.safetensors");
    path = argv[1];
    File file = read_file();
    Tensor current = find(file, "input/current"), expected = find(file, "output/spikes");
    bool single = current.width == 4, same = current.rank == expected.rank && current.width == expected.width;
    if (!same || !current.rank || memcmp(current.shape, expected.shape, sizeof current.shape))
        fail("input/current and output/spikes differ in shape or dtype, or have no time axis");
    double vth = constant(file, "constant/vth"), leak = constant(file, "constant/leak"),
           u0 = constant(file, "constant/u0"), tie = constant(file, "constant/tie");
    if (!(vth > 0 && leak > 0 && leak <= 1 && u0 >= 0 && u0 < 1 && tie >= 0 && tie < 1))
        fail("vth %g, leak %g, u0 %g and tie %g are not a neuron's constants", vth, leak, u0, tie);
    size_t steps = current.shape[0], neurons = steps ? current.count / steps : 0, fired = 0;
    double level = rounded(vth * (1 - tie), single), start = rounded(u0 * vth, single);
    vth = rounded(vth, single), leak = rounded(leak, single);
    double *charge = malloc((neurons + 1) * sizeof *charge); /* u - vth * s of the step before */
    if (!charge) fail("is too large");
    for (size_t i = 0; i < neurons; i++) charge[i] = start;
    for (size_t k = 0; k < current.count; k++) {
        size_t t = k / neurons, i = k % neurons;
        double u = rounded(rounded(leak * charge[i], single) + element(current, k), single);
        double spike = u >= level, wanted = element(expected, k);
        if (spike != wanted) {
            printf("differs: step %zu of %zu, neuron %zu (from 0): u = %.17g, threshold %.17g, spike %g, file %g\n",
                   t + 1, steps, i, u, level, spike, wanted);
            return 1;
        }
        charge[i] = rounded(u - spike * vth, single); /* vth is exact in its precision, and so is the product */
        fired += spike == 1;
    }
    printf("ok: %zu steps of %zu neurons, %zu spikes, all equal\n", steps, neurons, fired);
    free(charge), free(file.bytes);
}
