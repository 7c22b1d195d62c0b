// On the audio thread: sound of any number of channels -> mono 16-bit blocks.

const BLOCK_MS = 40;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round((sampleRate * BLOCK_MS) / 1000));
    this.nFilled = 0;
    this.peak = 0;
  }

  process([channels]) {
    if (channels.length === 0) return true;
    const n = channels[0].length;
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      const value = Math.max(-1, Math.min(1, sum / channels.length));
      this.peak = Math.max(this.peak, Math.abs(value));
      this.block[this.nFilled++] = Math.min(32767, Math.round(value * 32768));
      if (this.nFilled === this.block.length) this.send();
    }
    return true;
  }

  send() {
    const samples = this.block.slice();
    this.port.postMessage({ samples, peak: this.peak }, [samples.buffer]);
    this.nFilled = 0;
    this.peak = 0;
  }
}

registerProcessor("capture", Capture);
