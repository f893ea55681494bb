/* Stands for an application: writes numbered lines to its output, then ends; without a word it writes none and stays. With `stay` it waits for the signal that ends
   it, with `second` it lives one second before its last line, with `paced` it writes a line in each tenth of a second, says
   when in microseconds since 1970, and stays; with `much` it writes half a megabyte in each second, and stays. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static void end(int signal) { (void)signal; _exit(0); }

int main(int count, char **words) {
  struct sigaction ends = {.sa_handler = end};
  sigaction(SIGTERM, &ends, NULL);
  const char *then = count > 2 ? words[2] : "";
  int paced = strcmp(then, "paced") == 0, much = strcmp(then, "much") == 0;
  int lines = count > 1 ? atoi(words[1]) : 0;
  for (int line = 0; line < lines; line++) {
    if (line + 1 == lines && strcmp(then, "second") == 0) {
      fflush(stdout);
      sleep(1);
    }
    if (paced) {
      struct timeval now;
      gettimeofday(&now, NULL);
      printf("line %d at %lld\n", line, now.tv_sec * 1000000LL + now.tv_usec);
      fflush(stdout);
      usleep(100000);
    } else if (much) {
      printf("line %d at %0480d\n", line, 0);
      fflush(stdout);
      usleep(900);
    } else {
      printf("line %d\n", line);
    }
  }
  fflush(stdout);
  while (count < 2 || paced || much || strcmp(then, "stay") == 0) pause();
  return 0;
}
