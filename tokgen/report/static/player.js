/** Plays one sound at a time. Switching to another keeps the position to the sample. */
class Player extends EventTarget {
  static FADE = 0.006; // seconds, against clicks
  static KEPT = 64; // decoded sounds in memory

  sound = null; // id of the element that holds the audio
  playing = false;
  repeat = false;
  target = null; // the sound asked for last, which may still be decoding
  active = false; // whether that one plays, or will
  #context = null;
  #buffers = new Map();
  #source = null;
  #gain = null;
  #duration = 0;
  #offset = 0; // position when playing began, or where it paused
  #startedAt = 0;
  #heard = 0;
  #request = 0;
  #pending = null; // position that was asked for, until the sound begins

  /** Seconds into the sound. */
  get position() {
    return this.#positionAt(this.#context?.currentTime);
  }

  #positionAt(now) {
    if (!this.playing) return this.#offset;
    const position = this.#offset + now - this.#startedAt;
    return this.repeat ? position % this.#duration : Math.min(position, this.#duration);
  }

  /** Seconds played so far, over all sounds. */
  get heard() {
    const now = this.playing ? this.#context.currentTime - this.#startedAt : 0;
    return this.#heard + now;
  }

  /** Play a sound from a position, or from where the one before it has got to. */
  async play(sound, position = null) {
    const request = ++this.#request;
    Object.assign(this, { target: sound, active: true });
    this.#pending = position ?? this.#pending;
    this.#context ??= new AudioContext();
    if (this.#context.state === "suspended") this.#context.resume();
    let buffer;
    try {
      buffer = await this.load(sound);
    } catch {
      if (request === this.#request) this.pause();
      this.dispatchEvent(new CustomEvent("failed", { detail: sound }));
      return;
    }
    if (request !== this.#request) return;
    this.#start(sound, buffer);
  }

  pause() {
    this.select(this.target);
  }

  /** Choose a sound without playing it. */
  select(sound, position = this.#pending ?? this.position) {
    this.#request += 1;
    this.#stop(position);
    Object.assign(this, { sound, target: sound, active: false });
    this.#pending = null;
    this.#changed();
  }

  /** Decode sounds ahead of time; one that fails says so when it is played. */
  prepare(sounds) {
    for (const sound of sounds) if (sound) this.load(sound).catch(() => {});
  }

  load(sound) {
    if (!this.#buffers.has(sound)) {
      this.#context ??= new AudioContext();
      const bytes = Uint8Array.from(atob(document.getElementById(sound).textContent), (c) =>
        c.charCodeAt(0),
      );
      this.#buffers.set(sound, this.#context.decodeAudioData(bytes.buffer));
      if (this.#buffers.size > Player.KEPT) {
        this.#buffers.delete(this.#buffers.keys().next().value);
      }
    }
    return this.#buffers.get(sound);
  }

  #start(sound, buffer) {
    const now = this.#context.currentTime; // one clock for both sounds
    const position = this.#pending ?? this.#positionAt(now);
    const at = position < buffer.duration ? Math.max(0, position) : 0;
    this.#stop(at);
    const gain = new GainNode(this.#context, { gain: 0 });
    gain.gain.setValueAtTime(0, now);
    gain.gain.linearRampToValueAtTime(1, now + Player.FADE);
    gain.connect(this.#context.destination);
    const source = new AudioBufferSourceNode(this.#context, { buffer, loop: this.repeat });
    source.connect(gain);
    source.onended = () => this.#ended(source);
    source.start(now, at);
    Object.assign(this, { sound, playing: true });
    this.#pending = null;
    this.#source = source;
    this.#gain = gain;
    this.#duration = buffer.duration;
    this.#startedAt = now;
    this.#changed();
  }

  #stop(position) {
    if (this.playing) {
      const now = this.#context.currentTime;
      this.#heard += now - this.#startedAt;
      this.#gain.gain.cancelScheduledValues(now);
      this.#gain.gain.setTargetAtTime(0, now, Player.FADE / 3);
      this.#source.stop(now + 2 * Player.FADE);
      this.#source = null;
    }
    this.playing = false;
    this.#offset = position;
    this.#changed();
  }

  #ended(source) {
    if (source !== this.#source) return;
    if (this.target === this.sound) this.active = false;
    this.#stop(0);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** "0:03.2" */
function clock(seconds) {
  const tenths = Math.floor(seconds * 10);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}

/** Call `draw` before every repaint while the player plays, and after every change. */
function follow(player, draw) {
  let scheduled = false;
  const step = () => {
    scheduled = false;
    draw();
    if (player.playing) schedule();
  };
  const schedule = () => {
    if (!scheduled) requestAnimationFrame(step);
    scheduled = true;
  };
  player.addEventListener("change", schedule);
}

/** Offer text as a file. */
function download(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** A field of CSV, quoted; text that a spreadsheet would take for a formula gets an apostrophe. */
function csvField(value) {
  let text = String(value);
  if (typeof value !== "number" && /^[=+\-@\t\r\n＝＋－＠]/.test(text)) text = `'${text}`;
  return `"${text.replaceAll('"', '""')}"`;
}

function csv(rows) {
  return rows.map((row) => row.map(csvField).join(",") + "\r\n").join("");
}

/** Letters and digits of a name, for a file. */
function fileName(name) {
  return name.replaceAll(/[^\p{L}\p{N}.-]+/gu, "_").slice(0, 60) || "run";
}
