--- The library's seeded generator.
return require "samebits.verify.prng"
