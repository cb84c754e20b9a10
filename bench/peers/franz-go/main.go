// The orders job, and the relay, by hand on franz-go: at least once, offsets of what has been acknowledged committed
// once a second. Orders are checked by hand, as one does in Go, for the same things as the schema.
package main

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type line struct {
	Sku *string `json:"sku"`
	Qty *int64  `json:"qty"`
}

type order struct {
	ID       *string  `json:"id"`
	Customer *string  `json:"customer"`
	Status   string   `json:"status"`
	Amount   *float64 `json:"amount"`
	Currency *string  `json:"currency"`
	TS       *int64   `json:"ts"`
	Lines    []line   `json:"lines"`
}

var statuses = map[string]bool{"created": true, "paid": true, "packed": true, "shipped": true, "delivered": true}

var errNotAnOrder = errors.New("not an order")

func (o *order) check() error {
	if o.ID == nil || !strings.HasPrefix(*o.ID, "ord-") || o.Customer == nil || *o.Customer == "" {
		return errNotAnOrder
	}
	if !statuses[o.Status] || o.Amount == nil || *o.Amount < 0 || len(o.Lines) == 0 {
		return errNotAnOrder
	}
	for _, l := range o.Lines {
		if l.Sku == nil || l.Qty == nil || *l.Qty < 1 {
			return errNotAnOrder
		}
	}
	return nil
}

// lru remembers the ids of late.
type lru struct {
	max   int
	byID  map[string]*list.Element
	order *list.List
}

func newLRU(max int) *lru {
	return &lru{max: max, byID: make(map[string]*list.Element, max), order: list.New()}
}

// add reports whether the id is new.
func (c *lru) add(id string) bool {
	if e, ok := c.byID[id]; ok {
		c.order.MoveToFront(e)
		return false
	}
	c.byID[id] = c.order.PushFront(id)
	if c.order.Len() > c.max {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.byID, last.Value.(string))
	}
	return true
}

func told(name string) string {
	value := os.Getenv(name)
	if value == "" {
		fail(fmt.Errorf("%s is not set", name))
	}
	return value
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func codec() kgo.CompressionCodec {
	switch os.Getenv("BENCH_CODEC") {
	case "lz4":
		return kgo.Lz4Compression()
	case "zstd":
		return kgo.ZstdCompression()
	default:
		return kgo.NoCompression()
	}
}

// work turns the records of one partition into those to write.
func work(relay bool, output string, seen *lru, records []*kgo.Record) []*kgo.Record {
	out := make([]*kgo.Record, 0, len(records))
	for _, r := range records {
		key := r.Key
		if !relay {
			var o order
			if err := json.Unmarshal(r.Value, &o); err != nil {
				fail(err)
			}
			if err := o.check(); err != nil {
				fail(err)
			}
			// A crash empties the cache, and what was not committed is read again: nothing is lost by marking on sight.
			if !seen.add(*o.ID) {
				continue
			}
			key = []byte(*o.Customer)
		}
		out = append(out, &kgo.Record{Topic: output, Key: key, Value: r.Value})
	}
	return out
}

func main() {
	runtime.GOMAXPROCS(2)
	relay := len(os.Args) > 1 && os.Args[1] == "relay"
	output := told("BENCH_OUTPUT")
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(told("KAFKA_BROKERS"), ",")...),
		kgo.ConsumerGroup(told("BENCH_GROUP")),
		kgo.ConsumeTopics(told("BENCH_INPUT")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(time.Second),
		kgo.BlockRebalanceOnPoll(),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(codec()),
		kgo.ProducerLinger(0),
		kgo.MaxBufferedRecords(100_000),
	)
	if err != nil {
		fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	seen := map[int32]*lru{}
	read := map[int32]*kgo.Record{}
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, 20_000)
		fetches.EachError(func(topic string, partition int32, err error) {
			if !errors.Is(err, context.Canceled) {
				fail(fmt.Errorf("%s/%d: %w", topic, partition, err))
			}
		})
		var all sync.WaitGroup
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) == 0 {
				return
			}
			cache := seen[p.Partition]
			if cache == nil {
				cache = newLRU(25_000)
				seen[p.Partition] = cache
			}
			last := p.Records[len(p.Records)-1]
			read[p.Partition] = last
			all.Add(1)
			go func() {
				defer all.Done()
				write(client, work(relay, output, cache, p.Records), last)
			}()
		})
		all.Wait()
		client.AllowRebalance()
	}
	if err := client.Flush(context.Background()); err != nil {
		fail(err)
	}
	for _, last := range read {
		client.MarkCommitRecords(last)
	}
	if err := client.CommitMarkedOffsets(context.Background()); err != nil {
		fail(err)
	}
	client.CloseAllowingRebalance()
}

// write sends records of one partition. Once all are acknowledged the last one read may be committed: a partition's
// orders go to the partition of the same number, which acknowledges in order.
func write(client *kgo.Client, records []*kgo.Record, last *kgo.Record) {
	var open atomic.Int64
	open.Store(int64(len(records)))
	for _, r := range records {
		client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				fail(err)
			}
			if open.Add(-1) == 0 {
				client.MarkCommitRecords(last)
			}
		})
	}
}
