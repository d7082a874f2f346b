--- The library's seeded generator.
return require "samebits.prng"
