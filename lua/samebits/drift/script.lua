--- The script of a report's page (JavaScript, without dependencies). It unpacks the tokens
-- (cells.lua), draws the map, shows the card of a token, and sorts and searches the tables.
--
-- All text goes into the page as text, never as markup. The page's policy allows this script alone,
-- by its digest, and no request.

return [==[
(function () {
"use strict";

var data = JSON.parse(document.getElementById("data").textContent);
var NONE = 0, INACTIVE = 1, EQUAL = 2, ONLY_A = 3, CAUSE = 5;
var WORST = 10, STEP = 100, CONTEXT = 8;

function $(id) { return document.getElementById(id); }

function make(tag, name, text) {
  var node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

// --- Unpacking

function bytesOf(text) {
  var raw = atob(text), out = new Uint8Array(raw.length);
  for (var i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

function Reader(text) { this.p = bytesOf(text); this.at = 0; }
Reader.prototype.more = function () { return this.at < this.p.length; };
Reader.prototype.byte = function () { return this.p[this.at++]; };
Reader.prototype.number = function () {
  var x = 0, scale = 1, b;
  do { b = this.byte(); x += (b & 127) * scale; scale *= 128; } while (b & 128);
  return x;
};
Reader.prototype.signed = function () {
  var x = this.number();
  return x % 2 ? -(x + 1) / 2 : x / 2;
};
Reader.prototype.word = function () {
  var w = 0;
  for (var k = 0; k < 32; k += 8) w |= this.byte() << k;
  return w;
};

var pun = new DataView(new ArrayBuffer(4));
function valueOf(w) { pun.setInt32(0, w); return pun.getFloat32(0); }
function hexOf(w) { return ("0000000" + (w >>> 0).toString(16)).slice(-8); }
function lineOf(w) { return w >= 0 ? w : -(w & 0x7fffffff); }     // +0 and -0 are one place
function orderOf(w) { return w >= 0 ? w : -(w & 0x7fffffff) - 1; } // they are two
function ofOrder(o) { return o >= 0 ? o : (-o - 1) | 0x80000000; }

var rows = data.rows, columns = data.columns;
var blocks = data.per_row > 1 || data.per_column > 1;
var starts = [0];
for (var b = 0; b < data.sequences; b++) {
  starts.push(starts[b] + (data.lengths ? data.lengths[b] : data.longest));
}

function sequenceOf(row) {
  if (!data.lengths) return Math.floor(row / data.longest);
  var low = 0, high = data.sequences;
  while (high - low > 1) {
    var middle = (low + high) >> 1;
    if (starts[middle] <= row) low = middle; else high = middle;
  }
  return low;
}

var cells = new Uint8Array(rows * columns), sizes = new Uint8Array(rows * columns);
(function () {
  var from = new Reader(data.cells), at = 0;
  while (from.more()) {
    var code = from.byte(), n = from.number();
    cells.fill(code, at, at + n);
    at += n;
  }
})();

var ids = [];
(function () {
  var from = new Reader(data.ids);
  while (from.more()) ids.push(from.signed());
})();

// The tokens whose values are here, and the one that stands in each cell (index + 1).
var held = data.held;
var tokens = {
  row: new Float64Array(held), sequence: new Uint32Array(held), position: new Uint32Array(held),
  id: new Uint32Array(held), a: new Int32Array(held), b: new Int32Array(held),
  code: new Uint8Array(held), difference: new Float64Array(held), ulps: new Float64Array(held)
};
var tokenIn = new Uint32Array(rows * columns);

function rank(i) {
  var d = Math.abs(tokens.difference[i]);
  return d === d ? d : Infinity;
}

function cellOf(i) {
  return Math.floor(tokens.sequence[i] / data.per_row) * columns +
         Math.floor(tokens.position[i] / data.per_column);
}

function sizeByte(d) {
  if (!(d < Infinity)) return 255;
  return d === 0 ? 0 : Math.max(1, Math.min(254, Math.floor(201 + 20 * Math.log10(d))));
}

(function () {
  var from = new Reader(data.values), row = -1;
  for (var i = 0; i < held; i++) {
    row += from.number() + 1;
    tokens.row[i] = row;
    tokens.sequence[i] = sequenceOf(row);
    tokens.position[i] = row - starts[tokens.sequence[i]];
    tokens.code[i] = from.byte();
    tokens.id[i] = from.number();
    var a = from.word(), b = ofOrder(orderOf(a) + from.signed());
    tokens.a[i] = a;
    tokens.b[i] = b;
    var x = valueOf(a), y = valueOf(b);
    tokens.difference[i] = a === b ? 0 : y - x;
    tokens.ulps[i] = x !== x || y !== y ? NaN : Math.abs(lineOf(a) - lineOf(b));
    var cell = cellOf(i), other = tokenIn[cell];
    if (!other || tokens.code[i] >= CAUSE && !(rank(i) <= rank(other - 1))) tokenIn[cell] = i + 1;
  }
  var rest = new Reader(data.sizes);
  for (var cell = 0; cell < cells.length; cell++) {
    if (cells[cell] < CAUSE) continue;
    sizes[cell] = blocks || !tokenIn[cell] ? rest.byte() : sizeByte(rank(tokenIn[cell] - 1));
  }
})();

// --- Words, as in the other reports

function short(x) {
  if (x !== x) return "NaN";
  if (x === Infinity) return "inf";
  if (x === -Infinity) return "-inf";
  if (x === 0) return "0";
  var e = Math.floor(Math.log10(Math.abs(x)));
  if (e >= -4 && e < 3) return String(Number(x.toPrecision(3)));
  return Number(x.toPrecision(3)).toExponential().replace("e+", "e");
}
function exact(x) {
  if (x !== x) return "NaN";
  return Math.abs(x) === Infinity ? (x < 0 ? "-inf" : "inf") : String(Number(x.toPrecision(9)));
}
function grouped(n) {
  return n > 9999 ? String(n).replace(/\B(?=(\d{3})+$)/g, "\u202f") : String(n);
}
function ratioOf(d) {
  if (d === 0) return "1";
  var off = Math.expm1(d);
  return Math.abs(off) < 0.01 ? "1 " + (off < 0 ? "- " : "+ ") + short(Math.abs(off)) :
         short(off + 1);
}

var FIXED = { 0: "no token", 1: "does not count", 2: "equal", 3: "in A only", 4: "in B only" };
function causeOf(code) { return data.causes[(code - CAUSE) >> 1]; }
function nameOf(code) { return code < CAUSE ? FIXED[code] : causeOf(code).name; }
function nearly(code) {
  return code >= CAUSE && (code - CAUSE) % 2 === 1 && !causeOf(code).open;
}
function textOf(i) { return tokens.id[i] && data.texts.length ? data.texts[tokens.id[i] - 1] : ""; }
function idOf(i) { return tokens.id[i] ? String(ids[tokens.id[i] - 1]) : ""; }

// --- Colours

var style = getComputedStyle(document.documentElement);
function cssColor(name) { return style.getPropertyValue(name).trim(); }
function channels(color) {
  var n = parseInt(color.slice(1), 16);
  return [n >> 16, n >> 8 & 255, n & 255];
}
function mixed(color, ground, share) {
  var p = channels(color), q = channels(ground), out = [];
  for (var k = 0; k < 3; k++) out.push(Math.round(q[k] + (p[k] - q[k]) * share));
  return "rgb(" + out.join(",") + ")";
}
function causeColor(code) { return cssColor(causeOf(code).open ? "--open" : causeOf(code).color); }

var LEVELS = 8, palette;
var low = 254, high = 1;
for (var cell = 0; cell < cells.length; cell++) {
  if (cells[cell] >= CAUSE && sizes[cell] > 0 && sizes[cell] < 255) {
    low = Math.min(low, sizes[cell]);
    high = Math.max(high, sizes[cell]);
  }
}
function level(size) {
  if (size === 255) return LEVELS - 1;
  if (size === 0 || high <= low) return size === 0 ? 0 : LEVELS - 1;
  return Math.round((size - low) / (high - low) * (LEVELS - 1));
}
function paint() {
  style = getComputedStyle(document.documentElement);
  var ground = cssColor("--card");
  palette = [null, cssColor("--idle"), cssColor("--same"), cssColor("--only"), cssColor("--only")];
  for (var k = 0; k < 2 * data.causes.length; k++) {
    var list = [], color = causeColor(CAUSE + k);
    for (var l = 0; l < LEVELS; l++) {
      list.push(mixed(color, ground, 0.3 + 0.7 * l / (LEVELS - 1)));
    }
    palette.push(list);
  }
}

// --- The map

var canvas = $("map"), box = canvas.parentNode, pen = canvas.getContext("2d");
var GUTTER = 40, HEAD = 6, FOOT = 20, wide, tall;
var selected = -1, shown = -1, lit = -1; // cells, and a cause to light up

function worstTokens() {
  var list = [];
  for (var i = 0; i < held; i++) if (tokens.code[i] >= CAUSE) list.push(i);
  list.sort(function (x, y) { return rank(y) - rank(x) || x - y; });
  return list.slice(0, WORST);
}
var worst = worstTokens();

function measure() {
  var room = box.clientWidth - GUTTER - 2;
  wide = Math.max(2, Math.min(22, Math.floor(room / columns)));
  tall = Math.max(3, Math.min(22, Math.floor(440 / rows)));
  if (wide > 6 && tall > 2 * wide) tall = 2 * wide;
}

function ticks(n, size, least) {
  var step = 1, list = [1, 2, 5];
  for (var k = 0; step * size < least; k++) step = list[k % 3] * Math.pow(10, Math.floor(k / 3));
  return step;
}

function draw() {
  var scale = window.devicePixelRatio || 1, gap = wide > 5 && tall > 5 ? 1 : 0;
  var w = GUTTER + columns * wide + 2, h = HEAD + rows * tall + FOOT;
  canvas.width = w * scale;
  canvas.height = h * scale;
  canvas.style.width = w + "px";
  canvas.style.height = h + "px";
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, w, h);
  for (var r = 0; r < rows; r++) {
    for (var c = 0; c < columns; c++) {
      var cell = r * columns + c, code = cells[cell];
      if (code === NONE) continue;
      var color = code < CAUSE ? palette[code] : palette[code][level(sizes[cell])];
      pen.globalAlpha = lit < 0 || lit === (code < CAUSE ? code : (code - CAUSE) >> 1 | 128) ?
                        1 : 0.15;
      pen.fillStyle = color;
      pen.fillRect(GUTTER + c * wide, HEAD + r * tall, wide - gap, tall - gap);
    }
  }
  pen.globalAlpha = 1;
  pen.fillStyle = cssColor("--faint");
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  var step = ticks(rows, tall / data.per_row, 14);
  for (var s = 0; s < data.sequences; s += step) {
    pen.fillText(String(s), GUTTER - 5, HEAD + (Math.floor(s / data.per_row) + 0.5) * tall);
  }
  pen.textAlign = "center";
  pen.textBaseline = "top";
  step = ticks(columns, wide / data.per_column, 32);
  for (var p = 0; p < data.longest; p += step) {
    pen.fillText(String(p), GUTTER + (Math.floor(p / data.per_column) + 0.5) * wide,
                 HEAD + rows * tall + 5);
  }
  pen.lineWidth = 1.5;
  worst.forEach(function (i) { ring(cellOf(i), cssColor("--ink"), 1); });
  if (selected >= 0) {
    pen.lineWidth = 3;
    ring(selected, cssColor("--ink"), 2);
  }
}

function ring(cell, color, margin) {
  var x = GUTTER + cell % columns * wide, y = HEAD + Math.floor(cell / columns) * tall;
  pen.strokeStyle = color;
  if (wide > 7 && tall > 7) {
    pen.strokeRect(x + margin / 2 - 0.5, y + margin / 2 - 0.5, wide - margin, tall - margin);
  } else {
    pen.beginPath();
    pen.arc(x + wide / 2, y + tall / 2, 4 + margin, 0, 2 * Math.PI);
    pen.stroke();
  }
}

function cellAt(event) {
  var at = canvas.getBoundingClientRect();
  var c = Math.floor((event.clientX - at.left - GUTTER) / wide);
  var r = Math.floor((event.clientY - at.top - HEAD) / tall);
  if (c < 0 || r < 0 || c >= columns || r >= rows) return -1;
  var cell = r * columns + c;
  return cells[cell] === NONE ? -1 : cell;
}

// --- The card

function pair(list, name, node) {
  list.appendChild(make("dt", "", name));
  var dd = make("dd");
  dd.appendChild(typeof node === "string" ? document.createTextNode(node) : node);
  list.appendChild(dd);
}

function bitsOf(w, other) {
  var code = make("code", "bits");
  for (var k = 31; k >= 0; k--) {
    var digit = String(w >>> k & 1);
    code.appendChild((w ^ other) >>> k & 1 ? make("i", "", digit) : document.createTextNode(digit));
    if (k === 31 || k === 23) code.appendChild(document.createTextNode(" "));
  }
  return code;
}

function swatch(code) {
  var node = make("span", "swatch");
  node.style.background = code < CAUSE ? palette[code] : causeColor(code);
  return node;
}

function quoted(text) { return "\u201c" + text + "\u201d"; }

function placeOf(cell) {
  var s = Math.floor(cell / columns) * data.per_row, p = cell % columns * data.per_column;
  if (!blocks) return "sequence " + s + ", position " + p;
  function range(from, n, past) {
    var last = Math.min(from + n, past) - 1;
    return last > from ? "s " + from + " to " + last : " " + from;
  }
  return "sequence" + range(s, data.per_row, data.sequences) + ", position" +
         range(p, data.per_column, data.longest);
}

// The tokens around one, as far as they are here.
function context(i) {
  var line = make("p", "context"), lowest = i, highest = i;
  function follows(x, y) {
    return x >= 0 && y < held && tokens.row[y] === tokens.row[x] + 1 &&
           tokens.sequence[x] === tokens.sequence[y];
  }
  while (i - lowest < CONTEXT && follows(lowest - 1, lowest)) lowest--;
  while (highest - i < CONTEXT && follows(highest, highest + 1)) highest++;
  if (lowest === highest || !data.texts.length) return null;
  for (var k = lowest; k <= highest; k++) {
    var word = make("span", k === i ? "here" : "", textOf(k) || idOf(k));
    word.style.borderColor = tokens.code[k] < CAUSE ? palette[tokens.code[k]] :
                             causeColor(tokens.code[k]);
    word.title = nameOf(tokens.code[k]);
    line.appendChild(word);
  }
  return line;
}

function proof(code) {
  if (code < CAUSE) return "";
  var cause = causeOf(code);
  if (cause.open) return cause.text;
  return cause.text + ". " + (nearly(code) ?
    "Computed again: within " + data.near + " nats, and an eighth of the difference." :
    cause.fact ? "Computed again." : "Computed again: the same bits.");
}

function show(cell) {
  var card = $("card");
  shown = cell;
  card.textContent = "";
  if (cell < 0) {
    card.appendChild(make("p", "faint", "Point at a cell."));
    return;
  }
  var i = tokenIn[cell] - 1, code = i >= 0 ? tokens.code[i] : cells[cell];
  var place = i >= 0 ? "sequence " + tokens.sequence[i] + ", position " + tokens.position[i] :
              placeOf(cell);
  var head = make("h3", "", place);
  card.appendChild(head);
  if (blocks && i >= 0) card.appendChild(make("p", "faint", "The worst of " + placeOf(cell) + "."));
  if (data.origins) {
    var from = data.origins[i >= 0 ? tokens.sequence[i] :
                            Math.floor(cell / columns) * data.per_row];
    card.appendChild(make("p", "faint", ["A", "B"].map(function (side, k) {
      return from[k] < 0 ? "not in " + side : side + "'s sequence " + from[k];
    }).join(", ")));
  }
  var list = make("dl"), why = make("span");
  if (i >= 0 && tokens.id[i]) {
    var id = make("span", "", idOf(i));
    if (textOf(i)) id.appendChild(make("b", "token", quoted(textOf(i))));
    pair(list, "id", id);
  }
  if (i >= 0) {
    [["A", tokens.a[i], tokens.b[i]], ["B", tokens.b[i], tokens.a[i]]].forEach(function (side) {
      var value = make("span");
      value.appendChild(make("b", "", exact(valueOf(side[1]))));
      value.appendChild(make("code", "hex", hexOf(side[1])));
      value.appendChild(bitsOf(side[1], side[2]));
      pair(list, side[0], value);
    });
    if (code !== EQUAL) {
      pair(list, "ULPs", tokens.ulps[i] === tokens.ulps[i] ? grouped(tokens.ulps[i]) :
                         "a NaN has no distance");
      pair(list, "B - A", short(tokens.difference[i]) + " nats");
      pair(list, "ratio", ratioOf(tokens.difference[i]));
    }
  } else if (code >= CAUSE) {
    var size = sizes[cell];
    pair(list, "|B - A|", size === 255 ? "not a number" : size === 0 ? "0" :
         "about " + short(Number(Math.pow(10, (size - 200.5) / 20).toPrecision(2))) + " nats");
  }
  why.appendChild(swatch(code));
  why.appendChild(make("b", "", nameOf(code) + (nearly(code) ? " (nearly)" : "")));
  pair(list, code < CAUSE ? "state" : "cause", why);
  card.appendChild(list);
  if (proof(code)) card.appendChild(make("p", "proof", proof(code)));
  if (i < 0 && code >= CAUSE) {
    card.appendChild(make("p", "faint", "Its values are not in this page; --csv and --jsonl have " +
                                        "those of all tokens."));
  }
  var around = i >= 0 && context(i);
  if (around) card.appendChild(around);
}

function select(cell, scroll) {
  selected = cell;
  show(cell);
  draw();
  if (cell < 0) return;
  var i = tokenIn[cell] - 1;
  var mark = i >= 0 ? tokens.sequence[i] + ":" + tokens.position[i] :
             Math.floor(cell / columns) * data.per_row + ":" + cell % columns * data.per_column;
  try { history.replaceState(null, "", "#" + mark); } catch (e) { /* a page of a file */ }
  if (scroll) box.scrollLeft = cell % columns * wide - box.clientWidth / 2;
}

function choose(i) { tokenIn[cellOf(i)] = i + 1; select(cellOf(i), true); }

canvas.addEventListener("mousemove", function (event) {
  var cell = cellAt(event);
  canvas.style.cursor = cell < 0 ? "default" : "pointer";
  if (cell >= 0 && cell !== shown) show(cell);
});
canvas.addEventListener("mouseleave", function () { show(selected); });
canvas.addEventListener("click", function (event) { select(cellAt(event)); });
canvas.addEventListener("keydown", function (event) {
  var moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (event.key === "Escape") return select(-1);
  var by = moves[event.key];
  if (!by) return;
  event.preventDefault();
  var to = selected < 0 ? worst.length ? cellOf(worst[0]) : 0 : selected + by;
  if (to >= 0 && to < cells.length && cells[to] !== NONE) select(to, true);
});

// --- The legend, and the worst tokens

function legend() {
  var node = $("legend"), counts = {}, codes = [];
  node.textContent = "";
  for (var cell = 0; cell < cells.length; cell++) {
    var code = cells[cell];
    if (code === NONE) continue;
    var key = code < CAUSE ? code : code - (code - CAUSE) % 2;
    if (!counts[key]) { counts[key] = 0; codes.push(key); }
    counts[key]++;
  }
  codes.sort(function (x, y) { return x - y; }).forEach(function (code) {
    var button = make("button", "key"), own = code < CAUSE ? code : (code - CAUSE) >> 1 | 128;
    button.type = "button";
    button.setAttribute("aria-pressed", String(lit === own));
    button.appendChild(swatch(code));
    button.appendChild(document.createTextNode(nameOf(code)));
    if (code >= CAUSE) button.title = causeOf(code).text;
    button.addEventListener("click", function () {
      lit = lit === own ? -1 : own;
      legend();
      draw();
    });
    node.appendChild(button);
  });
  if (high > low) {
    var scale = make("span", "scale");
    scale.appendChild(make("span", "", short(Math.pow(10, (low - 201) / 20))));
    for (var l = 0; l < LEVELS; l++) {
      var step = make("i");
      step.style.background = mixed(cssColor("--faint"), cssColor("--card"),
                                    0.3 + 0.7 * l / (LEVELS - 1));
      scale.appendChild(step);
    }
    scale.appendChild(make("span", "", short(Math.pow(10, (high - 200) / 20)) + " nats apart"));
    node.appendChild(scale);
  }
}

$("worst").hidden = worst.length === 0;
worst.forEach(function (i, k) {
  var button = make("button", "", String(k + 1));
  button.type = "button";
  button.title = "sequence " + tokens.sequence[i] + ", position " + tokens.position[i] + ": " +
                 short(tokens.difference[i]) + " nats";
  button.addEventListener("click", function () { choose(i); });
  $("worst").appendChild(button);
});

// --- The table of tokens

var COLUMNS = [
  ["sequence", function (i) { return tokens.sequence[i]; }],
  ["position", function (i) { return tokens.position[i]; }],
  ["id", function (i) { return tokens.id[i] ? ids[tokens.id[i] - 1] : -Infinity; }, idOf],
  ["token", textOf, function (i) { return textOf(i) && quoted(textOf(i)); }],
  ["A", function (i) { return valueOf(tokens.a[i]); },
   function (i) { return exact(valueOf(tokens.a[i])); },
   function (i) { return hexOf(tokens.a[i]); }],
  ["B", function (i) { return valueOf(tokens.b[i]); },
   function (i) { return exact(valueOf(tokens.b[i])); },
   function (i) { return hexOf(tokens.b[i]); }],
  ["B - A", function (i) { return tokens.difference[i]; },
   function (i) { return short(tokens.difference[i]); }],
  ["|B - A|", rank, null],
  ["ratio", function (i) { return tokens.difference[i]; },
   function (i) { return ratioOf(tokens.difference[i]); }],
  ["ULPs", function (i) { return tokens.ulps[i]; },
   function (i) { return tokens.ulps[i] === tokens.ulps[i] ? grouped(tokens.ulps[i]) : "-"; }],
  ["cause", function (i) { return nameOf(tokens.code[i]); },
   function (i) { return nameOf(tokens.code[i]) + (nearly(tokens.code[i]) ? " (nearly)" : ""); }]
].filter(function (column) {
  return column[2] !== null && (column[0] !== "token" || data.texts.length > 0) &&
         (column[0] !== "id" || ids.length > 0);
});

var order = [], sortBy = "B - A", falling = true, limit = STEP, byRank = true;

// A filter of tokens by what was typed: words that a token must all match.
function matcher(text) {
  var tests = text.toLowerCase().split(/\s+/).filter(Boolean).map(function (word) {
    var place = /^(\d+):(\d*)$/.exec(word), found = {}, codes = {};
    data.texts.forEach(function (token, k) {
      if (token.toLowerCase().indexOf(word) >= 0) found[k + 1] = true;
    });
    ids.forEach(function (id, k) { if (String(id) === word) found[k + 1] = true; });
    for (var code = 0; code < CAUSE + 2 * data.causes.length; code++) {
      codes[code] = (nameOf(code) + (nearly(code) ? " nearly" : "")).toLowerCase()
                    .indexOf(word) >= 0;
    }
    return function (i) {
      if (place) {
        return tokens.sequence[i] === Number(place[1]) &&
               (place[2] === "" || tokens.position[i] === Number(place[2]));
      }
      return found[tokens.id[i]] || codes[tokens.code[i]] || hexOf(tokens.a[i]) === word ||
             hexOf(tokens.b[i]) === word;
    };
  });
  return function (i) { return tests.every(function (test) { return test(i); }); };
}

function sorted() {
  var match = matcher($("find").value), list = [];
  for (var i = 0; i < held; i++) if (match(i)) list.push(i);
  var key = byRank ? rank : COLUMNS.filter(function (c) { return c[0] === sortBy; })[0][1];
  list.sort(function (x, y) {
    var p = key(x), q = key(y), by;
    if (typeof p === "string") by = p < q ? -1 : p > q ? 1 : 0;
    else by = p === q ? 0 : p !== p ? 1 : q !== q ? -1 : p - q;
    return (falling ? -by : by) || x - y;
  });
  return list;
}

function headOf(table) {
  var line = table.createTHead().insertRow();
  COLUMNS.forEach(function (column) {
    var cell = make("th"), button = make("button", "sort", column[0]);
    var is = column[0] === sortBy;
    button.type = "button";
    cell.setAttribute("aria-sort", is ? falling ? "descending" : "ascending" : "none");
    button.addEventListener("click", function () {
      falling = is ? !falling : column[0] !== "sequence" && column[0] !== "cause";
      byRank = false;
      sortBy = column[0];
      table_();
    });
    cell.appendChild(button);
    line.appendChild(cell);
  });
}

function table_() {
  var table = $("tokens");
  order = sorted();
  table.textContent = "";
  headOf(table);
  var body = table.createTBody();
  order.slice(0, limit).forEach(function (i) {
    var line = body.insertRow();
    line.tabIndex = 0;
    COLUMNS.forEach(function (column) {
      var cell = line.insertCell();
      if (column[0] === "cause") cell.appendChild(swatch(tokens.code[i]));
      cell.appendChild(document.createTextNode((column[2] || column[1])(i)));
      if (column[3]) cell.title = column[3](i);
      if (column[0] === "cause") cell.title = proof(tokens.code[i]);
    });
    function go() { choose(i); canvas.scrollIntoView({ block: "center" }); }
    line.addEventListener("click", go);
    line.addEventListener("keydown", function (event) { if (event.key === "Enter") go(); });
  });
  var left = order.length - limit;
  $("more").hidden = left <= 0;
  $("more").textContent = "show " + grouped(Math.min(left, 10 * STEP)) + " more of " +
                          grouped(Math.max(left, 0));
  $("found").textContent = grouped(order.length) + (order.length === 1 ? " token" : " tokens");
}

$("find").addEventListener("input", function () { limit = STEP; table_(); });
$("more").addEventListener("click", function () { limit += 10 * STEP; table_(); });
$("save").addEventListener("click", function () {
  var lines = [["sequence", "position", "id", "token", "a", "b", "a_hex", "b_hex", "ulps",
                "difference", "cause", "exactly"].join(",")];
  order.forEach(function (i) {
    var text = textOf(i);
    lines.push([tokens.sequence[i], tokens.position[i], idOf(i),
                text && '"' + JSON.stringify(text).replace(/"/g, '""') + '"',
                exact(valueOf(tokens.a[i])), exact(valueOf(tokens.b[i])), hexOf(tokens.a[i]),
                hexOf(tokens.b[i]), tokens.ulps[i] === tokens.ulps[i] ? tokens.ulps[i] : "",
                tokens.difference[i], nameOf(tokens.code[i]),
                tokens.code[i] < CAUSE ? "" : !nearly(tokens.code[i])].join(","));
  });
  var link = make("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
  link.download = "drift.csv";
  link.click();
  setTimeout(function () { URL.revokeObjectURL(link.href); }, 1000);
});

// --- Tables that are sorted by a click on a column's head

function numberIn(text) {
  var x = parseFloat(text.replace(/[\s\u202f]/g, "").replace(/^1([+-])(?=[\d.])/, "$1"));
  return x !== x ? null : /^1 [+-]/.test(text) ? 1 + x : x;
}
Array.prototype.forEach.call(document.querySelectorAll("table.sort"), function (table) {
  var heads = table.rows[0].cells;
  Array.prototype.forEach.call(heads, function (head, k) {
    if (!head.textContent) return;
    var button = make("button", "sort", head.textContent), down = true;
    button.type = "button";
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () {
      var lines = Array.prototype.slice.call(table.rows, 1);
      lines.sort(function (x, y) {
        var p = x.cells[k].textContent, q = y.cells[k].textContent;
        var m = numberIn(p), n = numberIn(q);
        var by = m !== null && n !== null ? m - n : p < q ? -1 : p > q ? 1 : 0;
        return down ? -by : by;
      });
      Array.prototype.forEach.call(heads, function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      down = !down;
      lines.forEach(function (line) { line.parentNode.appendChild(line); });
    });
  });
});

// --- Start

function all() {
  paint();
  measure();
  legend();
  draw();
  show(selected);
  table_();
}
document.documentElement.className = "live";
all();
var mark = /^#(\d+):(\d+)$/.exec(location.hash);
if (mark && Number(mark[1]) < data.sequences && Number(mark[2]) < data.longest) {
  select(Math.floor(mark[1] / data.per_row) * columns + Math.floor(mark[2] / data.per_column),
         true);
} else if (worst.length) {
  selected = cellOf(worst[0]);
  show(selected);
  draw();
}
window.addEventListener("resize", function () { measure(); draw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
// On paper everything is light.
window.addEventListener("beforeprint", function () {
  document.documentElement.classList.add("paper");
  all();
});
window.addEventListener("afterprint", function () {
  document.documentElement.classList.remove("paper");
  all();
});
})();
]==]
