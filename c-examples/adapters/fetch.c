/*
 * fetch.c: many transfers at once, by libcurl's multi socket interface on a loop (curl_adapter.h). Prints a
 * line for each that has ended: its URL, then "STATUS BYTES" or why it failed.
 *
 * Build:  cc -std=c11 -O2 -o fetch fetch.c $(pkg-config --cflags --libs omnipoll libcurl)
 * Run:    ./fetch [--engine select|poll|epoll|io_uring] [--timeout MS] [--times N] URL...
 */
#define _GNU_SOURCE /* getopt_long */
#include "curl_adapter.h"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static int waiting, failed;

static void must(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "fetch: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

static size_t discard(char *data, size_t size, size_t count, void *context)
{
    (void)data, (void)context;
    return size * count;
}

static void on_done(struct curl_adapter *adapter, CURL *easy, CURLcode result)
{
    const char *url;
    long status;
    curl_off_t bytes;
    curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(easy, CURLINFO_SIZE_DOWNLOAD_T, &bytes);
    if (result == CURLE_OK)
        printf("%s %ld %lld\n", url, status, (long long)bytes);
    else
        printf("%s %s\n", url, curl_easy_strerror(result));
    curl_easy_cleanup(easy);
    failed += result != CURLE_OK;
    if (--waiting == 0)
        omni_loop_stop(adapter->base.loop, 0);
}

static void begin(struct curl_adapter *adapter, const char *url, long timeout_ms)
{
    CURL *easy = curl_easy_init();
    must(easy != NULL, "curl_easy_init");
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, discard);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    must(curl_multi_add_handle(adapter->multi, easy) == CURLM_OK, "curl_multi_add_handle");
    waiting++;
}

int main(int argc, char **argv)
{
    static const struct option names[] = {
        {"engine", 1, NULL, 'e'}, {"timeout", 1, NULL, 't'}, {"times", 1, NULL, 'n'}, {0}};
    omni_loop_options options = {.size = sizeof options};
    struct curl_adapter adapter;
    omni_loop *loop;
    long timeout_ms = 0, times = 1;
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;)
        switch (name) {
        case 'e': options.engine = (uint32_t)omni_engine_by_name(optarg); break;
        case 't': timeout_ms = atol(optarg); break;
        case 'n': times = atol(optarg); break;
        default: return EXIT_FAILURE;
        }
    curl_global_init(CURL_GLOBAL_ALL);
    must(omni_loop_new(&options, &adapter_handler, &loop) == 0, omni_last_error());
    must(curl_adapter_init(&adapter, loop, on_done) == 0, "curl_multi_init");
    for (long time = 0; time < times; time++)
        for (int i = optind; i < argc; i++)
            begin(&adapter, argv[i], timeout_ms);
    must(waiting > 0, "no URL");
    must(omni_loop_run(loop) == 0, omni_last_error());
    curl_multi_cleanup(adapter.multi);
    must(adapter.base.error == 0, omni_strerror(adapter.base.error));
    omni_loop_free(loop);
    curl_global_cleanup();
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
