--- The look of plots, in terminals and in pictures. The colours are those of the reports' pages
-- (text/page.lua); the eight for series keep apart for colour-blind readers.

local M = {}

M.INK, M.FAINT, M.LINE, M.PAGE = "#1a1a19", "#63625e", "#e3e2de", "#ffffff"

--- The colours of series, in order: the first one is the pages' --mark.
M.SERIES = { "#2a78d6", "#d9692a", "#14713d", "#8a4fb5", "#b3261e", "#00858a", "#b8860b",
             "#63625e" }

--- The same for a terminal, of its 256 colours.
M.TERMINAL = { 33, 208, 35, 134, 160, 37, 178, 245 }

--- From small to large values of a heatmap.
M.HEAT = { "#eef4fc", "#c4dcf7", "#7fb1ea", "#2a78d6", "#0b2c5f" }
M.TERMINAL_HEAT = { 189, 153, 117, 75, 33, 26, 19 }

--- The n-th colour of a list, which begins again at its end.
function M.of(list, n) return list[(n - 1) % #list + 1] end

return M
