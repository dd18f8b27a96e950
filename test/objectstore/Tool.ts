/** An image of one program: `copy FROM TO`, `say`, `wait`, and then the status that its last argument is. */
import { join } from "node:path"
import { compiled, toolImage } from "../oci/ToolImage.ts"

const code = `#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char block[1048576];
int main(int argc, char **argv) {
  if (!strcmp(argv[1], "copy")) {
    FILE *from = fopen(argv[2], "r"), *to = fopen(argv[3], "w");
    if (!from || !to) { perror(argv[2]); return 9; }
    size_t n, sum = 0;
    while ((n = fread(block, 1, sizeof block, from)) > 0) { sum += n; if (fwrite(block, 1, n, to) != n) return 8; }
    if (fclose(to)) return 8;
    printf("copied %zu bytes of %s\\n", sum, getenv("INPUT_BUCKET"));
  } else if (!strcmp(argv[1], "wait")) {
    puts("waiting"); fflush(stdout); sleep(1000);
  } else {
    puts("said"); fputs("and complained\\n", stderr);
  }
  return argv[argc - 1][0] == '7' ? 7 : 0;
}`

/** Made in that folder; what `allow` has to begin with is `oci:<folder>/`. */
export const makeImage = (folder: string): string =>
  toolImage(join(folder, "image"), compiled(folder, code), { entrypoint: ["/tool"], cmd: [] })
