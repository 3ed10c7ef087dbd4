const report = JSON.parse(document.getElementById("report-data").textContent);
const player = new Player();
const statusLine = document.getElementById("status");

/** Listening table. Its cells are buttons; only the current one is in the tab order. */
class Grid {
  static keys = {
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
  };

  constructor(table) {
    this.listening = report.listenings[Number(table.dataset.listening)];
    this.cells = new Map();
    for (const button of table.querySelectorAll("button.cell")) {
      const row = Number(button.dataset.row);
      const column = Number(button.dataset.column);
      const sound = this.listening.clips[row].sounds[column];
      this.cells.set(sound, { button, row, column, sound });
    }
    this.current = this.cells.values().next().value ?? null;
    if (this.current) this.current.button.tabIndex = 0;
    table.addEventListener("click", (event) => this.#click(event));
    table.addEventListener("keydown", (event) => this.#key(event));
    for (const cell of this.cells.values()) this.#showDepth(cell);
    follow(player, () => this.#draw());
  }

  #find(row, column) {
    return this.cells.get(this.listening.clips[row]?.sounds[column]);
  }

  #click(event) {
    const button = event.target.closest("button.cell");
    if (!button) return;
    const cell = this.#find(Number(button.dataset.row), Number(button.dataset.column));
    this.#go(cell);
    if (event.detail === 0) this.toggle(cell);
    else this.#playFrom(cell, event.clientX);
  }

  #playFrom(cell, x) {
    this.#play(cell, this.#share(cell.button, x) * this.listening.clips[cell.row].seconds);
  }

  /** Return where a point of the screen lies on the time axis, from 0 to 1. */
  #share(button, x) {
    const box = button.querySelector(".picture").getBoundingClientRect();
    return Math.min(1, Math.max(0, (x - box.left) / box.width));
  }

  /** Show the levels of the frame under the pointer, for sounds of variable bitrate. */
  #showDepth({ button, row, column }) {
    const { seconds, depths } = this.listening.clips[row];
    const curve = depths?.[column];
    if (!curve) return;
    const text = button.querySelector(".levels");
    const mean = text.textContent;
    button.addEventListener("pointermove", (event) => {
      const at = this.#share(button, event.clientX) * seconds;
      const frame = Math.floor(at * curve.frame_rate);
      const levels = curve.depth[frame];
      text.textContent =
        levels === undefined
          ? mean
          : `frame ${frame}, ${at.toFixed(2)} s: ${levels} of ${curve.n_codebooks} levels`;
    });
    button.addEventListener("pointerleave", () => {
      text.textContent = mean;
    });
  }

  /** Play, resume or pause a cell. */
  toggle(cell) {
    if (player.target !== cell.sound) this.#play(cell, 0);
    else if (player.active) player.pause();
    else this.#play(cell, null);
  }

  #play(cell, position) {
    player.play(cell.sound, position);
    player.prepare(this.listening.clips[cell.row].sounds);
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.current) return;
    const move = Grid.keys[event.key];
    if (move) this.#move(...move);
    else if (event.key === "Home") this.#rewind();
    else return;
    event.preventDefault();
  }

  #rewind() {
    if (player.active) player.play(this.current.sound, 0);
    else player.select(this.current.sound, 0);
  }

  /** Move to the next cell with a sound. A new utterance starts at 0, a new column keeps the position. */
  #move(rows, columns) {
    let { row, column } = this.current;
    let cell;
    do {
      row += rows;
      column += columns;
      if (!this.listening.clips[row] || !this.listening.columns[column]) return;
      cell = this.#find(row, column);
    } while (!cell);
    const known = player.target === this.current.sound;
    const playing = known && player.active;
    this.#go(cell);
    if (playing) this.#play(cell, rows ? 0 : null);
    else player.select(cell.sound, rows || !known ? 0 : player.position);
  }

  #go(cell) {
    if (this.current) this.current.button.tabIndex = -1;
    this.current = cell;
    cell.button.tabIndex = 0;
    cell.button.focus();
  }

  #draw() {
    for (const cell of this.cells.values()) {
      const active = cell.sound === player.sound;
      cell.button.classList.toggle("active", active);
      cell.button.setAttribute("aria-pressed", String(active && player.playing));
      if (!active) continue;
      const { id, text, seconds } = this.listening.clips[cell.row];
      const share = seconds ? player.position / seconds : 0;
      cell.button.querySelector(".playhead").style.left = `${100 * Math.min(1, share)}%`;
      showTransport(`${this.listening.columns[cell.column].name} · ${text || id}`, seconds);
    }
  }
}

const transport = Object.fromEntries(
  ["play", "name", "time", "repeat"].map((part) => [
    part,
    document.getElementById(`transport-${part}`),
  ]),
);

function showTransport(name, seconds) {
  document.getElementById("transport").hidden = false;
  transport.name.textContent = name;
  transport.time.textContent = `${clock(player.position)} / ${clock(seconds)}`;
  transport.play.textContent = player.playing ? "Pause" : "Play";
}

transport.play.addEventListener("click", () => {
  if (player.active) player.pause();
  else player.play(player.target);
});

transport.repeat.addEventListener("change", () => {
  const { playing, position } = player;
  player.repeat = transport.repeat.checked;
  if (playing) player.play(player.sound, position);
});

follow(player, () => {
  if (!player.target) document.getElementById("transport").hidden = true;
});

player.addEventListener("failed", () => {
  statusLine.textContent = "This browser cannot decode this sound.";
});

for (const table of document.querySelectorAll("table.listening")) new Grid(table);

const theme = document.getElementById("theme");
const systemDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : systemDark.matches;
}

function showTheme() {
  theme.textContent = isDark() ? "Light theme" : "Dark theme";
}

theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
});
systemDark.addEventListener("change", showTheme);
showTheme();

document.getElementById("export").addEventListener("click", () => {
  download("report-settings.json", JSON.stringify(report.settings, null, 2), "application/json");
});
