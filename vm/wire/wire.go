// SPDX-License-Identifier: GPL-2.0-only

// Package wire frames what host and guest say to each other over one
// virtio-serial port: the command's streams, files, signals and the one
// frame that counts as a result, Exit.
//
// A frame is a 16-byte header and a payload:
//
//	0  magic   "dioF"
//	4  type    one byte
//	5  stream  one byte: which output a Tar or OutEnd frame belongs to
//	6  zero    two bytes
//	8  length  of the payload, little endian, at most MaxPayload
//	12 crc     CRC-32C of bytes 4 to 11 and the payload, little endian
//
// The port itself is reliable; the checksum is there because a guest whose
// memory was corrupted must never have its output taken for a result.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// Type says what a frame carries.
type Type uint8

// The frames. G is sent by the guest, H by the host.
const (
	Hello    Type = 1 + iota // G: PID 1 runs; payload Greeting
	Stdout                   // G: bytes
	Stderr                   // G: bytes
	Stdin                    // H: bytes, within the credit granted
	StdinEnd                 // H: end of input
	Credit                   // G: uint32, bytes of Stdin consumed
	Resize                   // H: payload Size
	Signal                   // H: uint32, signal number for the command
	Kmsg                     // G: one kernel record as the console prints it
	Tar                      // G: part of an output's tar stream
	OutEnd                   // G: output complete, or the reason it isn't
	Note                     // G: text for a person, on the host's stderr
	Fail                     // G: the command could not be started; text
	Exit                     // G: payload Status
	Bye                      // H: everything arrived, power off
	numTypes
)

// MaxPayload bounds a frame's payload, in bytes.
const MaxPayload = 64 << 10

// StdinWindow is how many bytes of Stdin the host may send before the guest
// has granted more: a command that never reads must not block signals.
const StdinWindow = 256 << 10

const headerSize = 16

var (
	magic = [4]byte{'d', 'i', 'o', 'F'}
	table = crc32.MakeTable(crc32.Castagnoli)
)

// ErrCorrupt is wrapped by every error that means the stream can't be
// trusted any more. A stream that ends within a frame gives
// io.ErrUnexpectedEOF; one that ends between frames, io.EOF.
var ErrCorrupt = errors.New("corrupt frame")

// Frame is one message. Payload belongs to whoever holds the Frame.
type Frame struct {
	Type    Type
	Stream  uint8
	Payload []byte
}

// Greeting is Hello's payload.
type Greeting struct {
	Release string  `json:"release"`
	Uptime  float64 `json:"uptime"` // seconds since the kernel started
}

// Size is Resize's payload, in character cells.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Status is Exit's payload: how the command ended.
type Status struct {
	Code   int    `json:"code"`             // as a shell shows it: 128+n for signal n
	Signal string `json:"signal,omitempty"` // name of the signal that killed it
}

// Writer sends frames; safe for concurrent use.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// NewWriter sends frames to w, each with one Write.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, buf: make([]byte, 0, headerSize+MaxPayload)}
}

// Send writes one frame; payload is at most MaxPayload bytes.
func (w *Writer) Send(t Type, stream uint8, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("send frame %d: payload of %d bytes, at most %d", t, len(payload), MaxPayload)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	b := append(w.buf[:0], magic[:]...)
	b = append(b, byte(t), stream, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	crc := crc32.Update(crc32.Checksum(b[4:12], table), table, payload)
	b = binary.LittleEndian.AppendUint32(b, crc)
	b = append(b, payload...)
	n, err := w.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("send frame %d: %w", t, err)
	}
	return nil
}

// SendText sends text, cut to what one frame holds.
func (w *Writer) SendText(t Type, text string) error {
	if len(text) > MaxPayload {
		text = text[:MaxPayload]
	}
	return w.Send(t, 0, []byte(text))
}

// SendUint32 sends one number.
func (w *Writer) SendUint32(t Type, v uint32) error {
	return w.Send(t, 0, binary.LittleEndian.AppendUint32(nil, v))
}

// SendJSON sends v as JSON.
func (w *Writer) SendJSON(t Type, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("send frame %d: %w", t, err)
	}
	return w.Send(t, 0, b)
}

// Stream is an io.Writer whose bytes become frames of one type.
func (w *Writer) Stream(t Type, stream uint8) io.Writer {
	return streamWriter{w, t, stream}
}

type streamWriter struct {
	w      *Writer
	t      Type
	stream uint8
}

func (s streamWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n := min(len(p)-done, MaxPayload)
		if err := s.w.Send(s.t, s.stream, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// Reader receives frames; for one goroutine.
type Reader struct {
	r io.Reader
}

// NewReader receives frames from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next is the next frame. After an error the stream is of no more use.
func (r *Reader) Next() (Frame, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(r.r, h[:]); err != nil {
		return Frame{}, err
	}
	if [4]byte(h[:4]) != magic {
		return Frame{}, fmt.Errorf("%w: no magic, got % x", ErrCorrupt, h[:4])
	}
	t := Type(h[4])
	if t == 0 || t >= numTypes || h[6] != 0 || h[7] != 0 {
		return Frame{}, fmt.Errorf("%w: type %d, padding % x", ErrCorrupt, t, h[6:8])
	}
	n := binary.LittleEndian.Uint32(h[8:])
	if n > MaxPayload {
		return Frame{}, fmt.Errorf("%w: length %d", ErrCorrupt, n)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r.r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	crc := crc32.Update(crc32.Checksum(h[4:12], table), table, payload)
	if crc != binary.LittleEndian.Uint32(h[12:]) {
		return Frame{}, fmt.Errorf("%w: checksum of a type %d frame differs", ErrCorrupt, t)
	}
	return Frame{Type: t, Stream: h[5], Payload: payload}, nil
}

// Uint32 is the number that the frame carries.
func (f Frame) Uint32() (uint32, error) {
	if len(f.Payload) != 4 {
		return 0, fmt.Errorf("%w: type %d wants 4 bytes, has %d", ErrCorrupt, f.Type, len(f.Payload))
	}
	return binary.LittleEndian.Uint32(f.Payload), nil
}

// JSON decodes the payload into v.
func (f Frame) JSON(v any) error {
	if err := json.Unmarshal(f.Payload, v); err != nil {
		return fmt.Errorf("%w: type %d: %v", ErrCorrupt, f.Type, err)
	}
	return nil
}
