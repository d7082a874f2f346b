-- Made by record.lua: the encodings of float32 logprobs, one block per sequence.
return { numerics = 1, token = {
  {
    "c08ac12f", "c01d473b", "bd3b9cd0", "bc0c41df", "bcc98969", "bc58b8a0",
    "bf8882bc", "bdd983dd", "00000000", "00000000", "00000000", "00000000",
  },
  {
    "c06ca1ee", "c087fca3", "c060eda8", "bfab1683", "c06da40d", "bc759e70",
    "bf7c4bd6", "bde93556", "bea6d009", "be8e62d4", "00000000", "00000000",
  },
  {
    "bc84e0d0", "bfa5fd8d", "bc2100cd", "bf2bfb32", "bab79718", "bf0d362a",
    "bfa30849", "b99beb11", "b9c78ba9", "b85e49ff", "b885edf0", "ba2a2f9c",
  },
  {
    "bfaa6b25", "becd276f", "c068cfac", "bd20086d", "c0134dce", "bca0e6f6",
    "bc69be7c", "beb35ddc", "bcf6da80", "be45ca16", "be82d0e7", "00000000",
  },
} }
