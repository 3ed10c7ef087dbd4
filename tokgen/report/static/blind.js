/** Draw a uniform integer from 0 to n - 1. */
function chance(n) {
  const limit = Math.floor(2 ** 32 / n) * n;
  const [drawn] = crypto.getRandomValues(new Uint32Array(1));
  return drawn < limit ? drawn % n : chance(n);
}

function shuffled(items) {
  const found = [...items];
  for (let i = found.length - 1; i > 0; i -= 1) {
    const j = chance(i + 1);
    [found[i], found[j]] = [found[j], found[i]];
  }
  return found;
}

/** Base class of the blind tests: a dialog with setup, trials and results, and keyboard control. */
class BlindTest {
  constructor(dialog) {
    this.dialog = dialog;
    this.setup = dialog.querySelector(".setup");
    this.trialPart = dialog.querySelector(".trial");
    this.resultPart = dialog.querySelector(".results");
    this.timeline = dialog.querySelector(".timeline input");
    this.setup.addEventListener("submit", (event) => this.#submit(event));
    this.timeline.addEventListener("input", () => this.#seek());
    dialog.addEventListener("keydown", (event) => this.#key(event));
    dialog.addEventListener("click", (event) => this.#click(event));
    dialog.addEventListener("cancel", (event) => this.#cancel(event));
    dialog.addEventListener("close", () => player.select(null, 0));
    player.addEventListener("change", () => this.#note());
    follow(player, () => this.#draw());
  }

  /** Note which sounds the trial has played. */
  #note() {
    if (this.trialPart.hidden || !player.playing) return;
    if (player.sound === this.sounds[this.chosen]) this.played.add(this.chosen);
  }

  open(listening) {
    this.listening = listening;
    this.rows = [];
    this.sounds = {};
    player.select(null, 0);
    this.offer();
    this.#show(this.setup);
    this.#say(this.setup, "");
    this.dialog.showModal();
  }

  #submit(event) {
    if (event.submitter?.value === "cancel") return;
    event.preventDefault();
    this.rater = this.setup.elements.rater.value.trim();
    const problem = this.prepare();
    this.#say(this.setup, problem);
    if (problem) return;
    this.index = 0;
    this.#show(this.trialPart);
    this.#begin();
  }

  #begin() {
    player.select(null, 0);
    this.heardBefore = player.heard;
    this.played = new Set();
    const clip = this.listening.clips[this.trials[this.index].row];
    this.seconds = clip.seconds;
    this.sounds = this.begin(this.trials[this.index], clip);
    player.prepare(Object.values(this.sounds));
    const text = clip.text || clip.id;
    this.dialog.querySelector(".progress").textContent =
      `${this.unit} ${this.index + 1} of ${this.trials.length}: ${text}`;
    this.chosen = Object.keys(this.sounds)[0];
    this.#draw();
    this.dialog.querySelector("[data-sound]").focus();
  }

  /** Seconds of audio played since the start of the trial. */
  get heard() {
    return Number((player.heard - this.heardBefore).toFixed(2));
  }

  next() {
    this.index += 1;
    if (this.index < this.trials.length) this.#begin();
    else this.finish();
  }

  finish() {
    player.select(null, 0);
    this.report(this.resultPart.querySelector(".outcome"));
    this.#show(this.resultPart);
    this.resultPart.querySelector("button").focus();
  }

  save() {
    const name = `${this.name}-${fileName(this.listening.run)}.csv`;
    download(name, csv([this.header, ...this.rows]), "text/csv;charset=utf-8");
  }

  /** Keys of sounds that this trial has not played yet. */
  unplayed(keys) {
    return keys.filter((key) => !this.played.has(key));
  }

  #choose(key) {
    const same = key === this.chosen && player.active;
    this.chosen = key;
    if (same) player.pause();
    else player.play(this.sounds[key]);
  }

  #seek() {
    const position = Number(this.timeline.value) * this.seconds;
    if (player.active) player.play(this.sounds[this.chosen], position);
    else player.select(this.sounds[this.chosen], position);
  }

  #key(event) {
    if (this.trialPart.hidden || event.altKey || event.ctrlKey || event.metaKey) return;
    const key = event.key.toLowerCase();
    const onButton = event.target.closest("button");
    const onSlider = event.target.matches("input");
    if (Object.hasOwn(this.sounds, key)) this.#choose(key);
    else if (key === " " && !onButton) this.#choose(this.chosen);
    else if (key === "home" && !onSlider) this.#rewind();
    else return;
    event.preventDefault();
  }

  #rewind() {
    this.timeline.value = 0;
    this.#seek();
  }

  #click(event) {
    const button = event.target.closest("button");
    if (!button) return;
    const { sound, do: action } = button.dataset;
    if (sound !== undefined) this.#choose(sound);
    if (action === "csv") this.save();
    if (action === "finish") this.finish();
    if (action === "close") this.dialog.close();
    this.clicked(button);
  }

  /** The first Escape ends the trials and keeps the answers. The second closes the dialog. */
  #cancel(event) {
    if (this.trialPart.hidden) return;
    event.preventDefault();
    this.finish();
  }

  #show(part) {
    for (const each of [this.setup, this.trialPart, this.resultPart]) each.hidden = each !== part;
  }

  #say(part, message) {
    part.querySelector(".message").textContent = message;
  }

  warn(message) {
    this.#say(this.trialPart, message);
  }

  #draw() {
    if (this.trialPart.hidden) return;
    for (const button of this.dialog.querySelectorAll("[data-sound]")) {
      const on = player.playing && button.dataset.sound === this.chosen;
      button.setAttribute("aria-pressed", String(on));
    }
    if (this.seconds) this.timeline.value = player.position / this.seconds;
    this.timeline.setAttribute("aria-valuetext", `${player.position.toFixed(1)} seconds`);
  }
}
